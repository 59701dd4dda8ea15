package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// taskRow is a row of the API server's table of tasks.
type taskRow struct {
	columns map[string]int
	row     *metav1.TableRow
}

// text returns the cell of a column, or "" if it is empty.
func (r taskRow) text(column string) string {
	if i, has := r.columns[column]; has && i < len(r.row.Cells) && r.row.Cells[i] != nil {
		return strings.TrimSuffix(fmt.Sprint(r.row.Cells[i]), "<none>")
	}
	return ""
}

// number returns the cell of a column, or 0 if it is empty.
func (r taskRow) number(column string) int {
	n, _ := strconv.Atoi(r.text(column))
	return n
}

// metadata returns the metadata of the task.
func (r taskRow) metadata() (*metav1.PartialObjectMetadata, error) {
	object := &metav1.PartialObjectMetadata{}
	err := json.Unmarshal(r.row.Object.Raw, object)
	return object, err
}

// readTaskRows reads the table of the tasks of a namespace, or of all if it is "", page by page, and calls
// onRow for each. The tasks themselves have lists of targets, which may be long. zoneID limits the
// tasks to those of a zone, unless it is "".
func (e *environment) readTaskRows(ctx context.Context, namespace, zoneID string, onRow func(taskRow) error) error {
	config, err := e.config.ToRESTConfig()
	if err != nil {
		return err
	}
	config = rest.CopyConfig(config)
	config.GroupVersion, config.APIPath, config.NegotiatedSerializer = &v1alpha1.GroupVersion, "/apis", clientgoscheme.Codecs.WithoutConversion()
	c, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}
	for next := ""; ; {
		request := c.Get().Resource("prefetchtasks").NamespaceIfScoped(namespace, namespace != "").
			SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").
			Param("limit", strconv.Itoa(pageSize)).Param("continue", next).Param("includeObject", string(metav1.IncludeMetadata))
		if zoneID != "" {
			request.Param("fieldSelector", "spec.zoneID="+zoneID)
		}
		answer := request.Do(ctx)
		if err := answer.Error(); err != nil { // that of Raw does not say why
			return err
		}
		text, err := answer.Raw()
		if err != nil {
			return err
		}
		page := &metav1.Table{}
		if err := json.Unmarshal(text, page); err != nil {
			return err
		}
		columns := map[string]int{}
		for i, c := range page.ColumnDefinitions {
			columns[c.Name] = i
		}
		for i := range page.Rows {
			if err := onRow(taskRow{columns, &page.Rows[i]}); err != nil {
				return err
			}
		}
		if next = page.Continue; next == "" {
			return nil
		}
	}
}

package conformance

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// runLua runs a script as Argo CD does in production: for at most one second, with the
// libraries package, base and table. Argo CD also provides parts of os, which the scripts
// do not need. Argo CD's own tests open all libraries, so they do not notice missing ones.
func runLua(t *testing.T, script string, object *unstructured.Unstructured) map[string]any {
	t.Helper()
	text, err := os.ReadFile(argoCD + script)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	vm := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer vm.Close()
	openLibrary(t, vm, lua.LoadLibName, lua.OpenPackage)
	openLibrary(t, vm, lua.BaseLibName, lua.OpenBase)
	openLibrary(t, vm, lua.TabLibName, lua.OpenTable)
	vm.SetContext(ctx)
	vm.SetGlobal("obj", toLua(vm, object.Object))
	if err := vm.DoString(string(text)); err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	result, ok := fromLua(vm.Get(-1)).(map[string]any)
	if !ok {
		t.Fatalf("%s returns no table", script)
	}
	return result
}

func openLibrary(t *testing.T, vm *lua.LState, name string, open lua.LGFunction) {
	t.Helper()
	must(t, vm.CallByParam(lua.P{Fn: vm.NewFunction(open), Protect: true}, lua.LString(name)))
}

func toLua(vm *lua.LState, value any) lua.LValue {
	switch v := value.(type) {
	case string:
		return lua.LString(v)
	case bool:
		return lua.LBool(v)
	case int64:
		return lua.LNumber(v)
	case float64:
		return lua.LNumber(v)
	case []any:
		table := vm.NewTable()
		for _, item := range v {
			table.Append(toLua(vm, item))
		}
		return table
	case map[string]any:
		table := vm.NewTable()
		for key, item := range v {
			table.RawSetString(key, toLua(vm, item))
		}
		return table
	}
	return lua.LNil
}

func fromLua(value lua.LValue) any {
	switch v := value.(type) {
	case lua.LString:
		return string(v)
	case lua.LBool:
		return bool(v)
	case lua.LNumber:
		return int64(v)
	case *lua.LTable:
		if v.Len() > 0 {
			var list []any
			v.ForEach(func(_, item lua.LValue) { list = append(list, fromLua(item)) })
			return list
		}
		object := map[string]any{}
		v.ForEach(func(key, item lua.LValue) { object[key.String()] = fromLua(item) })
		return object
	}
	return nil
}

// actionTests is action_test.yaml in Argo CD's format.
type actionTests struct {
	DiscoveryTests []struct {
		InputPath string           `json:"inputPath"`
		Result    []map[string]any `json:"result"`
	} `json:"discoveryTests"`
	ActionTests []struct {
		Action             string `json:"action"`
		InputPath          string `json:"inputPath"`
		ExpectedOutputPath string `json:"expectedOutputPath"`
	} `json:"actionTests"`
}

func TestTheActionsOfArgoCD(t *testing.T) {
	const actions = argoCD + ofTask + "actions/"
	text, err := os.ReadFile(actions + "action_test.yaml")
	must(t, err)
	var tests actionTests
	must(t, yaml.UnmarshalStrict(text, &tests))
	input := func(t *testing.T, path string) *unstructured.Unstructured {
		t.Helper()
		original, err := os.ReadFile(filepath.Join(argoCD, ofTask, path))
		must(t, err)
		same(t, actions+path, original) // Argo CD needs its own copy
		return read(t, actions+path)
	}
	for _, test := range tests.DiscoveryTests {
		t.Run("discovery of "+test.InputPath, func(t *testing.T) {
			want := map[string]any{}
			for _, action := range test.Result {
				name := action["name"].(string)
				delete(action, "name")
				want[name] = action
			}
			if got := runLua(t, ofTask+"actions/discovery.lua", input(t, test.InputPath)); !reflect.DeepEqual(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
	for _, test := range tests.ActionTests {
		t.Run(test.Action, func(t *testing.T) {
			changed := runLua(t, ofTask+"actions/"+test.Action+"/action.lua", input(t, test.InputPath))
			text, err := yaml.Marshal(changed)
			must(t, err)
			same(t, actions+test.ExpectedOutputPath, text)
		})
	}
}

// The ConfigMap patch is for users whose Argo CD does not know the kinds yet.
func TestTheArgoCDConfigMapHasTheScripts(t *testing.T) {
	script := func(path string) string {
		text, err := os.ReadFile(argoCD + path)
		must(t, err)
		return string(text)
	}
	type definition struct {
		Name      string `json:"name"`
		ActionLua string `json:"action.lua"`
	}
	var actions struct {
		Discovery   string       `json:"discovery.lua"`
		Definitions []definition `json:"definitions"`
	}
	actions.Discovery = script(ofTask + "actions/discovery.lua")
	scripts, err := filepath.Glob(argoCD + ofTask + "actions/*/action.lua")
	must(t, err)
	for _, path := range slices.Sorted(slices.Values(scripts)) {
		name := filepath.Base(filepath.Dir(path))
		actions.Definitions = append(actions.Definitions, definition{name, script(ofTask + "actions/" + name + "/action.lua")})
	}
	text, err := yaml.Marshal(actions)
	must(t, err)
	patch, err := yaml.Marshal(map[string]any{"data": map[string]any{
		"resource.customizations.health.teo.prefetch-operator.io_PrefetchTask":   script(ofTask + "health.lua"),
		"resource.customizations.health.teo.prefetch-operator.io_EdgeOneAccount": script("EdgeOneAccount/health.lua"),
		"resource.customizations.actions.teo.prefetch-operator.io_PrefetchTask":  strings.TrimSpace(string(text)) + "\n",
	}})
	must(t, err)
	header := "# Generated from resource_customizations/ by go test . -update in test/conformance. Apply it with\n" +
		"# kubectl -n argocd patch configmap argocd-cm --patch-file argocd-cm.yaml\n"
	same(t, root+"config/argocd/argocd-cm.yaml", append([]byte(header), patch...))
}

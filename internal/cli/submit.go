package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli/urllist"
)

// submitOptions are the flags of submit.
type submitOptions struct {
	source         listSource
	name           string
	zone           string
	account        string
	revision       string
	mode           string
	purge          []string
	freshSince     string
	ttl            time.Duration
	labels         map[string]string
	dryRun         string
	forceConflicts bool
	output         outputFlag
	wait           bool
	waitOptions    waitOptions
}

func newSubmitCommand(env *environment) *cobra.Command {
	options := &submitOptions{}
	cmd := &cobra.Command{
		Use:   "submit (FILE | - | --sitemap URL)",
		Short: "Create or update a task from a list of URLs or a sitemap",
		Long: `Create or update a task from a list of URLs, standard input (-) or sitemaps.

A list has one URL a line; blank lines, and lines that start with #, are ignored. A list that one task
cannot have (10,000 URLs, 1,550,000 bytes) becomes several tasks, NAME, NAME-2 and so on. The label
teo.prefetch-operator.io/list=NAME selects all of them.

The API server checks all tasks before the first one is created, so that a bad URL creates nothing. If a
task of the name exists, it is updated (server-side apply): the same list with the same revision does
nothing, an edited list submits the URLs that are new, and a new --revision submits every URL again.`,
		Example: `  # Create the task warm-home from the file warm-home.txt
  kubectl teo-prefetch submit warm-home.txt --zone=zone-2x9examplea

  # In the pipeline of a release: purge, prefetch and wait for the outcome
  kubectl teo-prefetch submit urls.txt --name=warm-shop --zone=zone-2x9examplea \
    --revision=1.4.0 --purge=URL --wait --timeout=45m

  # The articles of a sitemap that were modified since yesterday
  kubectl teo-prefetch submit --sitemap=https://www.example.com/sitemap.xml --since=24h \
    --include=/articles/ --zone=zone-2x9examplea`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return env.submit(cmd.Context(), args, options)
		},
	}
	options.addTo(cmd, env)
	return cmd
}

func (o *submitOptions) addTo(cmd *cobra.Command, env *environment) {
	flags := cmd.Flags()
	o.source.addTo(cmd)
	flags.StringVar(&o.name, "name", "", "Name of the task (default: the name of the file without its extension; without a file, a new name)")
	flags.StringVar(&o.zone, "zone", "", "EdgeOne zone of the URLs, for example zone-2x9examplea (required)")
	flags.StringVar(&o.account, "account", "", "EdgeOneAccount (default: the one named default)")
	flags.StringVar(&o.revision, "revision", "", "spec.revision, for example a release version; a new one submits every URL again")
	flags.StringVar(&o.mode, "mode", "", "Default or Edge")
	flags.StringArrayVar(&o.purge, "purge", nil, "Purge first: URL, or Prefix=VALUE, Host=VALUE or CacheTag=VALUE, which can be repeated")
	flags.StringVar(&o.freshSince, "fresh-since", "", "Submit no URL that EdgeOne has prefetched since this time, for example 2026-11-28T14:05:00Z")
	flags.DurationVar(&o.ttl, "ttl", 0, "Delete the task this long after its run is over, for example 24h")
	flags.StringToStringVarP(&o.labels, "labels", "l", nil, "Labels of the task, for example release=1.4.0")
	flags.StringVar(&o.dryRun, "dry-run", "none", "none, client (print the task, and ask no cluster) or server (let the API server check it)")
	flags.BoolVar(&o.forceConflicts, "force-conflicts", false, "Take over fields that another program has set")
	o.output.addTo(cmd, "name")
	flags.BoolVar(&o.wait, "wait", false, "Wait as the command wait does; the output and the exit code are those of wait")
	o.waitOptions.addTo(cmd)
	for flag, complete := range map[string]cobra.CompletionFunc{
		"zone": env.completeZones, "account": env.completeAccounts,
		"dry-run": cobra.FixedCompletions([]string{"none", "client", "server"}, cobra.ShellCompDirectiveNoFileComp),
		"mode":    cobra.FixedCompletions([]string{string(v1alpha1.ModeDefault), string(v1alpha1.ModeEdge)}, cobra.ShellCompDirectiveNoFileComp),
		"purge":   cobra.FixedCompletions([]string{"URL", "Prefix=", "Host=", "CacheTag="}, cobra.ShellCompDirectiveNoSpace),
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, complete)
	}
}

// maxTTL is the longest --ttl.
const maxTTL = 10 * 365 * 24 * time.Hour

func (o *submitOptions) validate(args []string) error {
	if !slices.Contains([]string{"none", "client", "server"}, o.dryRun) {
		return fmt.Errorf("unknown value %q of --dry-run: use none, client or server", o.dryRun)
	}
	if o.wait && (o.dryRun != "none" || o.output.format == "name") {
		return errors.New("--wait cannot be used with --dry-run or -o name")
	}
	if err := o.waitOptions.refuse(); err != nil && !o.wait {
		return err
	}
	if !slices.Contains([]string{"", string(v1alpha1.ModeDefault), string(v1alpha1.ModeEdge)}, o.mode) {
		return fmt.Errorf("unknown value %q of --mode: use Default or Edge", o.mode)
	}
	if o.zone == "" {
		return errors.New("no zone is given: give --zone, for example --zone=zone-2x9examplea")
	}
	if o.ttl != 0 && o.ttl < time.Minute || o.ttl > maxTTL || o.ttl%time.Second != 0 {
		return errors.New("--ttl must be at least 1m, at most 87600h (ten years), and in whole seconds")
	}
	if _, isSet := o.labels[listLabel]; isSet {
		return fmt.Errorf("the label %s cannot be set: submit sets it to the name of the list", listLabel)
	}
	return cmp.Or(o.output.validate(), o.waitOptions.validate(), o.source.validate(args))
}

// submit creates or updates the tasks of a list.
func (e *environment) submit(ctx context.Context, args []string, options *submitOptions) error {
	if err := options.validate(args); err != nil {
		return err
	}
	namespace, err := e.namespace()
	if err != nil {
		return err
	}
	template, err := options.newTask(namespace, args, e.now())
	if err != nil {
		return err
	}
	list, err := options.source.read(ctx, e, args)
	if err != nil {
		return err
	}
	tasks, err := splitTask(template, list)
	if err != nil {
		return err
	}
	s := &submission{environment: e, options: options, tasks: tasks, name: template.Name}
	waiting := options.waitOptions
	waiting.output = options.output
	if len(tasks) == 0 {
		_, _ = fmt.Fprintln(e.ErrOut, "Nothing was modified since the time of --since, so nothing is submitted")
		if options.wait {
			return newWaiter(e, nil, &taskSelection{}, namespace, waiting).finish(false)
		}
		return s.print()
	}
	e.describeList(list, len(tasks))
	if options.dryRun != "client" {
		if s.client, err = e.client(); err != nil {
			return err
		}
		if err := s.apply(ctx); err != nil {
			return err
		}
	}
	if options.wait {
		return e.waitForTasks(ctx, s.client, &taskSelection{}, s.keys(), waiting)
	}
	return s.print()
}

// describeList says on standard error what was read.
func (e *environment) describeList(list *urllist.List, parts int) {
	text := fmt.Sprintf("%d URLs", len(list.URLs))
	if len(list.URLs) == 1 {
		text = "1 URL"
	}
	switch list.Duplicates {
	case 0:
	case 1:
		text += " (1 duplicate left out)"
	default:
		text += fmt.Sprintf(" (%d duplicates left out)", list.Duplicates)
	}
	if parts > 1 {
		text += fmt.Sprintf(" in %d tasks", parts)
	}
	_ = printLine(e.ErrOut, "%s", text)
}

package cli

import (
	"strings"

	"github.com/spf13/pflag"
)

// suggestCommand returns a command that a user can run next, for example "kubectl teo-prefetch wait" with
// names as args. It is about a namespace (all, if it is empty) of the cluster that this command is about.
func (e *environment) suggestCommand(command, namespace string, args ...string) string {
	if namespace != "" {
		args = append(args, "-n", namespace)
	}
	args = append(args, e.clusterArguments()...)
	for _, arg := range args {
		command += " " + quoteArgument(arg)
	}
	return command
}

// clusterArguments returns the flags that this command was given to choose the cluster and the user. What
// is secret is left out.
func (e *environment) clusterArguments() (args []string) {
	e.clusterFlags.VisitAll(func(flag *pflag.Flag) {
		if !flag.Changed || flag.Name == "namespace" || flag.Name == "token" {
			return
		}
		values := []string{flag.Value.String()}
		if list, isList := flag.Value.(pflag.SliceValue); isList {
			values = list.GetSlice()
		}
		for _, value := range values {
			args = append(args, "--"+flag.Name+"="+value)
		}
	})
	return args
}

// quoteArgument returns an argument as a shell takes it.
func quoteArgument(arg string) string {
	isSpecial := func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-", r)
	}
	if arg != "" && !strings.ContainsFunc(arg, isSpecial) {
		return arg
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

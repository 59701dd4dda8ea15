package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/cli"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// terminal is a command that runs on a terminal of 100 columns. Its standard output, standard error
// and input are the terminal.
type terminal struct {
	*command
	user   *os.File // what the user types and sees
	screen *lockedBuffer
}

// startOnTerminal starts a command on a terminal.
func (w *world) startOnTerminal(args ...string) *terminal {
	w.t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	w.must(err)
	w.must(unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	w.must(err)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	w.must(err)
	w.must(unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 100}))
	screen := &lockedBuffer{}
	go func() { _, _ = io.Copy(screen, user) }()
	w.t.Cleanup(func() { _, _ = tty.Close(), user.Close() })

	kubeconfig := filepath.Join(w.t.TempDir(), "kubeconfig")
	w.must(cluster.WriteKubeconfig(kubeconfig, shared.cluster.Admin, w.namespace))
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	c := &command{t: w.t, done: make(chan struct{}), interrupt: cancel}
	go func() {
		defer close(c.done)
		c.code = cli.Main(ctx, append([]string{"--kubeconfig=" + kubeconfig}, args...), genericiooptions.IOStreams{In: tty, Out: tty, ErrOut: tty}, "")
	}()
	return &terminal{command: c, user: user, screen: screen}
}

// shows waits until the terminal has shown a text.
func (c *terminal) shows(w *world, text string) {
	w.t.Helper()
	w.eventually("the terminal shows "+text, func() bool { return strings.Contains(c.screen.String(), text) })
}

func TestOnATerminalActionsAsk(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good))
	for _, c := range []struct {
		answer string
		code   int
		shown  string
	}{
		{"n\n", 1, "Error: nothing was changed"},
		{"\n", 1, "Error: nothing was changed"},
		{"yes\n", 0, "home rerun requested"},
	} {
		command := w.startOnTerminal("rerun", "home", "--revision=2")
		command.shows(w, "Continue? [y/N]")
		_, err := command.user.WriteString(c.answer)
		w.must(err)
		if r := command.wait(); r.code != c.code {
			t.Errorf("%q: exit code %d", c.answer, r.code)
		}
		command.shows(w, c.shown)
		if isChanged := w.get("home").Spec.Revision != ""; isChanged != (c.code == 0) {
			t.Errorf("%q: changed: %v", c.answer, isChanged)
		}
	}
}

func TestAnAnswerCountsOnlyForWhatWasShown(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, command string
		change        func(name string) // between the question and the answer
		isRefused     bool
	}{
		{"edited", "rerun", func(name string) {
			w.edit(name, func(task *v1alpha1.PrefetchTask) { task.Spec.Targets = append(task.Spec.Targets, good+"more") })
		}, true},
		{"retried", "retry", func(name string) {
			w.edit(name, func(task *v1alpha1.PrefetchTask) {
				task.Annotations = map[string]string{v1alpha1.RetryAnnotation: "theirs"}
			})
		}, true},
		{"new", "rerun", func(name string) {
			w.must(w.Delete(t.Context(), w.get(name)))
			w.create(w.task(name, good))
		}, true},
		{"reported", "rerun", func(name string) {
			w.setStatus(name, func(task *v1alpha1.PrefetchTask) { task.Status.JobCount = 1 })
		}, false},
	} {
		w.create(w.task(c.name, good))
		w.setStatus(c.name, func(task *v1alpha1.PrefetchTask) {
			task.Status.Run, task.Status.RefusedPositions = taskstate.RunHash(task), "0"
			taskstate.UpdateSummary(task, task.CreationTimestamp.Time)
		})
		command := w.startOnTerminal(c.command, c.name)
		command.shows(w, "Continue? [y/N]")
		c.change(c.name)
		_, err := command.user.WriteString("y\n")
		w.must(err)
		if r := command.wait(); (r.code != 0) != c.isRefused {
			t.Errorf("%s: exit code %d", c.name, r.code)
		}
		if c.isRefused {
			command.shows(w, "Error: "+c.name+": somebody else has changed the task since it was read: run the command again")
		} else {
			command.shows(w, c.name+" rerun requested")
		}
		task := w.get(c.name)
		if retry := task.Annotations[v1alpha1.RetryAnnotation]; c.isRefused && (task.Spec.Revision != "" || retry != "" && retry != "theirs") {
			t.Errorf("%s: it is changed: %+v", c.name, task)
		}
	}
}

func TestOnATerminalWaitShowsABar(t *testing.T) {
	w := newWorld(t)
	w.create(w.task("home", good+"1", good+"2"))
	c := w.startOnTerminal("wait", "home")
	c.shows(w, "0/2")
	c.shows(w, "NotObserved: The status is not about")
	w.setStatus("home", func(task *v1alpha1.PrefetchTask) {
		task.Status.ObservedGeneration, task.Status.Run = task.Generation, taskstate.RunHash(task)
		task.Status.Jobs = []v1alpha1.Job{{ID: "a", ClaimID: "a", Positions: "0-1", SubmitTime: task.CreationTimestamp, Succeeded: 1}}
		taskstate.UpdateSummary(task, task.CreationTimestamp.Time)
	})
	c.shows(w, "1/2")
	w.setStatus("home", succeeded)
	if r := c.wait(); r.code != 0 {
		t.Errorf("exit code %d", r.code)
	}
	c.shows(w, "home: \x1b[32mSucceeded\x1b[0m: All 2 targets are prefetched")
}

func TestWithoutColorsAndCursorATerminalGetsLines(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	t.Setenv("TERM", "dumb")
	w := &world{Client: shared.cluster.Client, t: t, namespace: "default"}
	task := w.task("plain", good)
	w.create(task)
	t.Cleanup(func() { _ = w.Delete(context.WithoutCancel(t.Context()), task) })
	w.setStatus("plain", succeeded)
	c := w.startOnTerminal("wait", "plain")
	c.wait()
	c.shows(w, "plain: Succeeded: The target is prefetched")
	if strings.Contains(c.screen.String(), "\x1b") {
		t.Errorf("escape sequences: %q", c.screen.String())
	}
}

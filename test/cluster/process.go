package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// keptOutput is how much of a process' output is kept, in bytes; the oldest goes first.
	keptOutput = 4 << 20
	// readyPoll is how often a starting process is asked whether it is ready.
	readyPoll = 25 * time.Millisecond
)

// Process is a program that runs next to the test, like an exec.Cmd that can be
// started again after it has ended. It never outlives the program that started
// it (on Linux, not even one that is killed) and takes its children with it.
type Process struct {
	// Name stands in errors.
	Name string
	// Path and Args are what to run.
	Path string
	Args []string
	// Env is added to this process' environment.
	Env []string
	// Dir is the working directory; empty is this process' own.
	Dir string
	// ReadyURL answers 200 once the process is ready; empty means ready at once.
	ReadyURL string
	// Tee, if not nil, also gets what the process prints to stdout and stderr.
	Tee io.Writer

	output outputBuffer

	mu     sync.Mutex
	run    *run // the last one; nil before the first start
	starts int
}

// run is one run of a process. Whoever waits for its end keeps hold of it: by
// then somebody else may have started the process again.
type run struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended
	err  error         // how it ended, once done is closed
}

// Start starts the process and waits until it is ready. It is an error if the
// process ends, or ctx does, before that; the process is not left running then.
// A process that has ended can be started again.
func (p *Process) Start(ctx context.Context) error {
	if err := p.launch(); err != nil {
		return fmt.Errorf("starting %s: %w", p.Name, err)
	}
	if err := p.waitReady(ctx); err != nil {
		p.Kill()
		return fmt.Errorf("starting %s: %w\n%s", p.Name, err, p.LastLines(20))
	}
	return nil
}

func (p *Process) launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run.isRunning() {
		return errors.New("it is running")
	}
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.Dir = p.Dir
	var out io.Writer = &p.output
	if p.Tee != nil {
		out = io.MultiWriter(&p.output, p.Tee)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = sysProcAttr()
	cmd.WaitDelay = 2 * time.Second // a grandchild may hold the pipe open

	started, r := make(chan error), &run{cmd: cmd, done: make(chan struct{})}
	go func() {
		// Linux kills the child when the thread that started it ends: keep that
		// thread for as long as the child runs (golang/go#27505).
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		r.err = cmd.Wait()
		close(r.done)
	}()
	if err := <-started; err != nil {
		return err
	}
	p.run = r
	p.starts++
	return nil
}

func (p *Process) waitReady(ctx context.Context) error {
	if p.ReadyURL == "" {
		return nil
	}
	client := &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			// A process of ours on this machine, asked only whether it is ready.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
	}
	r := p.lastRun()
	for {
		last := checkURL(ctx, client, p.ReadyURL)
		if last == nil {
			return nil
		}
		select {
		case <-r.done:
			return fmt.Errorf("it ended before it was ready: %w", r.err)
		case <-ctx.Done():
			return fmt.Errorf("it did not become ready (%w): %w", last, ctx.Err())
		case <-time.After(readyPoll):
		}
	}
}

func checkURL(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}

func (p *Process) lastRun() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

// Done is closed when the process has ended; nil if it was never started.
func (p *Process) Done() <-chan struct{} {
	if r := p.lastRun(); r != nil {
		return r.done
	}
	return nil
}

// IsRunning says whether the process was started and has not ended.
func (p *Process) IsRunning() bool { return p.lastRun().isRunning() }

func (r *run) isRunning() bool {
	if r == nil {
		return false
	}
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// Starts returns how often the process was started.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// KeepRunning starts the process again a while after it ends, as a kubelet would, until
// ctx ends. When the returned channel is closed, it starts the process no more.
func (p *Process) KeepRunning(ctx context.Context, after time.Duration) (ended <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-p.Done():
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(after):
				_ = p.Start(ctx) // tried again if it fails
			case <-ctx.Done():
				return
			}
		}
	}()
	return done
}

// PID is the process ID of the last start, 0 before the first.
func (p *Process) PID() int {
	if r := p.lastRun(); r != nil {
		return r.cmd.Process.Pid
	}
	return 0
}

// Signal sends a signal to the process alone; none if it has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	r := p.lastRun()
	if !r.isRunning() {
		return nil
	}
	return p.signal(r, sig)
}

func (p *Process) signal(r *run, sig syscall.Signal) error {
	if err := r.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signalling %s: %w", p.Name, err)
	}
	return nil
}

// Wait waits for the process to end and returns how it ended, nil for exit
// status 0, or ctx's error.
func (p *Process) Wait(ctx context.Context) error {
	r := p.lastRun()
	if r == nil {
		return nil
	}
	return r.wait(ctx)
}

func (r *run) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop asks the process to end (SIGTERM) and waits for that. After grace, or
// when ctx ends, it is killed, which is an error. So is an exit status other
// than 0, but not the death by the SIGTERM that was sent.
func (p *Process) Stop(ctx context.Context, grace time.Duration) error {
	r := p.lastRun()
	if !r.isRunning() {
		return nil
	}
	if err := p.signal(r, syscall.SIGTERM); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	err := r.wait(waiting)
	if r.isRunning() {
		r.kill()
		return fmt.Errorf("%s did not stop within %s and was killed", p.Name, grace)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stopping %s: %w", p.Name, err)
	}
	return nil
}

// Kill kills the process and its children (SIGKILL) and waits for its end.
func (p *Process) Kill() { p.lastRun().kill() }

func (r *run) kill() {
	if r.isRunning() {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		<-r.done
	}
}

// Output is what the process printed so far, over all its starts: the last 4 MiB.
func (p *Process) Output() string {
	return p.output.String()
}

// LastLines is the end of Output.
func (p *Process) LastLines(n int) string {
	lines := strings.Split(strings.TrimRight(p.Output(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// outputBuffer keeps the last keptOutput bytes, for several goroutines.
type outputBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *outputBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(data)
	if n := b.buf.Len() - keptOutput; n > 0 {
		b.buf.Next(n)
	}
	return len(data), nil
}

func (b *outputBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// FreePort returns a TCP port on 127.0.0.1 that nobody listened on a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

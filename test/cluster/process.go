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
	// keptOutput is how many bytes of a process's output are kept. The oldest are dropped
	// first.
	keptOutput = 4 << 20
	// readyPoll is the interval at which a starting process is checked for readiness.
	readyPoll = 25 * time.Millisecond
)

// Process is a program that runs next to the test. It is like an exec.Cmd that can be
// restarted after it has ended. A process never outlives the program that started it, and
// takes its children with it. On Linux this holds even if that program is killed.
type Process struct {
	// Name identifies the process in errors.
	Name string
	// Path and Args are the program and its arguments.
	Path string
	Args []string
	// Env is added to the environment of this program.
	Env []string
	// Dir is the working directory. Default: the directory of this program.
	Dir string
	// ReadyURL returns 200 once the process is ready. If empty, the process is ready at
	// once.
	ReadyURL string
	// Tee, if not nil, also receives stdout and stderr of the process.
	Tee io.Writer

	output outputBuffer

	mu     sync.Mutex
	run    *run // the last one; nil before the first start
	starts int
}

// run is one run of a process. Code that waits for its end keeps the run itself, because
// the process may have been restarted in the meantime.
type run struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the run has ended
	err  error         // why it ended; valid once done is closed
}

// Start starts the process and waits until it is ready. It returns an error if the process
// ends or ctx is done first; the process does not keep running in that case. A process
// that has ended can be started again.
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
	cmd.WaitDelay = 2 * time.Second // a grandchild may keep the pipe open

	started, r := make(chan error), &run{cmd: cmd, done: make(chan struct{})}
	go func() {
		// Linux kills the child when the thread that started it ends. Keep the thread
		// until the child has ended (golang/go#27505).
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
			// This only checks whether a process of ours on this machine is ready.
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

// Done returns a channel that is closed when the process has ended. It returns nil if the
// process was never started.
func (p *Process) Done() <-chan struct{} {
	if r := p.lastRun(); r != nil {
		return r.done
	}
	return nil
}

// IsRunning reports whether the process was started and has not ended.
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

// Starts returns how many times the process was started.
func (p *Process) Starts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.starts
}

// KeepRunning restarts the process whenever it ends, after a delay, as a kubelet does. It
// stops doing so when ctx is done, and then closes the returned channel.
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
				_ = p.Start(ctx) // retried if it fails
			case <-ctx.Done():
				return
			}
		}
	}()
	return done
}

// PID returns the process ID of the last start, or 0 before the first.
func (p *Process) PID() int {
	if r := p.lastRun(); r != nil {
		return r.cmd.Process.Pid
	}
	return 0
}

// Signal sends a signal to the process, but not to its children. It does nothing if the
// process has ended.
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

// Wait waits until the process ends or ctx is done. It returns nil for exit status 0.
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

// Stop sends SIGTERM and waits until the process has ended. If that takes longer than
// grace, or ctx is done, Stop kills the process and returns an error. It also returns an
// error for a non-zero exit status, but not for a process that ended because of this
// SIGTERM.
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

// Kill kills the process and its children with SIGKILL and waits until the process has
// ended.
func (p *Process) Kill() { p.lastRun().kill() }

func (r *run) kill() {
	if r.isRunning() {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		<-r.done
	}
}

// Output returns what the process has printed so far, over all its starts, up to the last
// 4 MiB.
func (p *Process) Output() string {
	return p.output.String()
}

// LastLines returns the last n lines of Output.
func (p *Process) LastLines(n int) string {
	lines := strings.Split(strings.TrimRight(p.Output(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// outputBuffer keeps the last keptOutput bytes. It is safe for concurrent use.
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

// FreePort returns a TCP port on 127.0.0.1 that was free a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

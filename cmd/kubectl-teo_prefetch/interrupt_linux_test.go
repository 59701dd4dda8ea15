package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// asProgram is set for a process that runs the program in place of the tests.
const asProgram = "RUN_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// startProgram starts the program, which prints standard error into the buffer.
func startProgram(t *testing.T, stdin *os.File, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	stderr := &bytes.Buffer{}
	program := exec.CommandContext(t.Context(), os.Args[0], args...)
	program.Env, program.Stdin, program.Stderr = append(os.Environ(), asProgram+"=1"), stdin, stderr
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	return program, stderr
}

// fillPipe writes more than a pipe holds, so that the program has begun to read when it returns.
func fillPipe(t *testing.T, pipe *os.File) {
	t.Helper()
	if _, err := pipe.Write(bytes.Repeat([]byte("# comment\n"), 100_000)); err != nil {
		t.Fatal(err)
	}
}

func TestCtrlCEndsAProgramThatReadsStandardInput(t *testing.T) {
	stdin, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = input.Close() }()
	program, stderr := startProgram(t, stdin, "verify", "-f", "-")
	_ = stdin.Close()
	fillPipe(t, input)
	if err := program.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); program.ProcessState.ExitCode() != 130 || stderr.String() != "Error: interrupted\n" {
		t.Errorf("%v, standard error:\n%s", err, stderr)
	}
}

func TestASecondSignalKillsTheProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "never-ends")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	program, _ := startProgram(t, nil, "verify", "-f", path) // what nothing interrupts
	input, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = input.Close() }()
	fillPipe(t, input)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = program.Wait()
	}()
	for signal := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-signal.C:
			_ = program.Process.Signal(os.Interrupt)
		case <-ended:
			if status := program.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
				t.Errorf("%v", program.ProcessState)
			}
			return
		}
	}
}

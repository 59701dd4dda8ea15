//go:build linux

// Command terminal runs a command line on a terminal of 120 columns, and prints what the terminal gets.
// It answers y to each question that ends with [y/N], and prints the exit code if that is not 0.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

const columns = 120

func main() {
	if err := runOnTerminal(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "terminal:", err)
		os.Exit(1)
	}
}

// runOnTerminal runs a command line and prints what its terminal gets.
func runOnTerminal(commandLine string) error {
	user, tty, err := openTerminal()
	if err != nil {
		return err
	}
	defer func() { _ = user.Close() }()
	cmd := exec.Command("sh", "-c", commandLine)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = tty.Close()
	showAndAnswer(user)
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		_, err = fmt.Printf("\x1b[2mexit code %d\x1b[0m\n", exit.ExitCode())
	}
	return err
}

// openTerminal returns the user's end and the program's end of a new terminal.
func openTerminal() (user, tty *os.File, err error) {
	user, err = os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	return user, tty, unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: columns})
}

// showAndAnswer prints what the terminal gets, and answers questions, until all programs have left it.
func showAndAnswer(user io.ReadWriter) {
	shown := make([]byte, 1<<16)
	for {
		n, err := user.Read(shown)
		if err != nil { // EIO when the last program has ended
			return
		}
		_, _ = os.Stdout.Write(shown[:n])
		if bytes.HasSuffix(shown[:n], []byte("[y/N] ")) {
			_, _ = io.WriteString(user, "y\n")
		}
	}
}

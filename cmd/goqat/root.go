package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/goqat/goqat/internal/registry"
	"github.com/goqat/goqat/quantops"
	"github.com/goqat/goqat/train"
	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// run executes a command line and returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return 0
	}
	var shown *shownError
	if !errors.As(err, &shown) {
		fmt.Fprintln(stderr, "goqat:", oneLine(err))
	}
	return status(err)
}

// interruptible returns a context that ends with Ctrl-C or a request to terminate, for commands that then stop in good
// order. A second signal ends the program at once.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// oneLine returns an error's message with line breaks, of a path for example, written out.
func oneLine(err error) string {
	return strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(err.Error())
}

// shownError is an error whose message the user has seen.
type shownError struct{ error }

func (e *shownError) Unwrap() error { return e.error }

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// status returns the exit status for an error: usage for what the user asked for in a way that can't be.
func status(err error) int {
	var (
		usage   *usageError
		config  *train.UsageError
		unknown *registry.UnknownError
		method  *quantops.MethodError
	)
	switch {
	case errors.Is(err, train.ErrInterrupted):
		return exitInterrupted
	case errors.As(err, &usage), errors.As(err, &config), errors.As(err, &unknown), errors.As(err, &method):
		return exitUsage
	}
	return exitFailure
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "goqat",
		Short: "Quantization-aware training in Go, down to integers",
		Long: `Goqat trains small convolutional networks whose weights and activations live on few levels, writes them
as integers and runs these without floating point.

Start with:  goqat train`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noCommand,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, c.CommandPath())
	})
	root.AddCommand(newTrain(), newQuantize(), newEval(), newExport(), newInspect(), newPredict(), newBench(), newList(), newData(), newVersion())
	return root
}

// noCommand refuses an unknown subcommand, with the nearest known ones.
func noCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("unknown command %q", args[0])
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		message += fmt.Sprintf(": did you mean %q?", near[0])
	}
	return usagef("%s; see goqat --help", message)
}

// arguments accepts between least and most arguments; what says what they are. Most of -1 is any number.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usagef("%s takes %s, got %d; see %s --help", c.Name(), what, len(args), c.CommandPath())
		}
		return nil
	}
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/train"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
)

func newData() *cobra.Command {
	c := &cobra.Command{
		Use:   "data",
		Short: "Download data sets and check their files",
		Args:  noDataCommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newDataFetch(), newDataVerify())
	return c
}

// noDataCommand refuses an unknown subcommand.
func noDataCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usagef("unknown command %q for goqat data: want fetch or verify", args[0])
}

func newDataFetch() *cobra.Command {
	return &cobra.Command{
		Use:   "fetch NAME",
		Short: "Download a data set into the user's cache folder",
		Long: `Download a data set from its authors' addresses into the user's cache folder, where training finds it, and check
it. A download that was broken off is continued. Sets that come with the program need no download.`,
		Example:           "  goqat data fetch cifar10",
		Args:              arguments(1, 1, "the name of a data set"),
		ValidArgsFunction: completeFetchable,
		RunE: func(c *cobra.Command, args []string) error {
			ctx, stop := interruptible()
			defer stop()
			return fetch(ctx, args[0], c.OutOrStdout(), newDisplay(c.OutOrStdout(), c.ErrOrStderr(), false))
		},
	}
}

// fetch downloads a data set, checks it and says where it is.
func fetch(ctx context.Context, name string, out io.Writer, d *display) error {
	bar := &downloadBar{name, d}
	err := datasets.Fetch(ctx, name, bar.show)
	bar.end()
	if ctx.Err() != nil {
		return &fetchInterrupted{name}
	}
	if err != nil {
		return err
	}
	folder, err := datasets.Locate(name, "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: %s\n", name, folder)
	return err
}

// fetchInterrupted ends the program like an interrupted training.
type fetchInterrupted struct{ name string }

func (e *fetchInterrupted) Error() string {
	return fmt.Sprintf("data: interrupted; go on with: goqat data fetch %s", e.name)
}

func (e *fetchInterrupted) Is(target error) bool { return target == train.ErrInterrupted }

// downloadBar is a progress bar in bytes; it shows itself on a terminal alone.
type downloadBar struct {
	name string
	*display
}

func (b *downloadBar) show(done, total int64) {
	if !b.terminal {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(b.progress), progressbar.OptionSetDescription(b.name),
			progressbar.OptionShowBytes(true), progressbar.OptionShowTotalBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100e6))
	}
	if total != b.bar.GetMax64() {
		b.bar.ChangeMax64(total)
	}
	b.bar.Set64(done)
}

// completeFetchable completes the names of data sets that can be downloaded.
func completeFetchable(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, s := range datasets.All() {
		if len(args) == 0 && s.Files != nil && len(s.Files.Downloads) > 0 {
			names = append(names, s.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newDataVerify() *cobra.Command {
	var dataDir string
	var asJSON bool
	c := &cobra.Command{
		Use:               "verify NAME",
		Short:             "Compare a data set's files with the published checksums",
		Args:              arguments(1, 1, "the name of a data set"),
		ValidArgsFunction: completeFetchable,
		RunE: func(c *cobra.Command, args []string) error {
			report, err := datasets.Verify(args[0], dataDir)
			if report.Files == nil {
				return err
			}
			show := printReport
			if asJSON {
				show = func(w io.Writer, r datasets.Report) error { return json.NewEncoder(w).Encode(r) }
			}
			if writeErr := show(c.OutOrStdout(), report); writeErr != nil {
				return writeErr
			}
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", "", "folder of the data set's files")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printReport(w io.Writer, r datasets.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "%s in %s\n", r.Name, r.Dir)
	for _, f := range r.Files {
		verdict := strings.TrimSpace(f.Check + " " + f.Sum)
		if f.Check == "size" {
			verdict = "size alone; no checksum is published"
		}
		if f.Problem != "" {
			verdict = "WRONG: " + f.Problem
		}
		fmt.Fprintf(t, "%s\t%d bytes\t%s\n", f.File, f.Bytes, verdict)
	}
	return t.Flush()
}

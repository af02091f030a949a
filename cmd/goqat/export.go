package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/models"
	"github.com/goqat/goqat/train"
	"github.com/spf13/cobra"
)

func newExport() *cobra.Command {
	var out, dataDir string
	var force bool
	c := &cobra.Command{
		Use:   "export RUN|CHECKPOINT",
		Short: "Write the integer model of a run or a checkpoint, or its weights",
		Long: `Write the integer model of a run or a checkpoint into a file NAME.goq, or its weights into a file NAME.safetensors:
what --out is named after decides. Weights are float32, under the network's names, as PyTorch lays them out, and real: those that
training works on, or those that codes stand for where there are no others. Quantizers are not in that file.`,
		Args: arguments(1, 1, "one run folder or checkpoint"),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := exportPath(args[0], out, force)
			if err != nil {
				return err
			}
			t, err := openTrained(args[0], dataDir)
			if err != nil {
				return err
			}
			if err := exportTrained(t, path); err != nil {
				return err
			}
			size, err := os.Stat(path)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s, %d bytes\n", path, size.Size())
			return err
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "file to write, NAME.goq or NAME.safetensors (default: model.goq in the run folder or beside the checkpoint)")
	c.Flags().StringVar(&dataDir, "data-dir", "", "folder of the data set's files")
	c.Flags().BoolVar(&force, "force", false, "overwrite an existing file")
	return c
}

// weightsExtension is that of files of weights.
const weightsExtension = ".safetensors"

// exportPath returns the file to write; one that exists needs force.
func exportPath(from, out string, force bool) (string, error) {
	switch {
	case strings.HasSuffix(from, ".goq"):
		return "", usagef("export: %s is an integer model already: want a run folder or a checkpoint", from)
	case out != "":
	case isFolder(from):
		out = filepath.Join(from, train.ModelFile)
	default:
		out = filepath.Join(filepath.Dir(from), train.ModelFile)
	}
	if extension := filepath.Ext(out); extension != ".goq" && extension != weightsExtension {
		return "", usagef("export: --out %s: want a name that ends in .goq, for an integer model, or in %s, for weights", out, weightsExtension)
	}
	if exists(out) && !force {
		return "", usagef("export: %s exists already: overwrite it with --force, or name another file with --out", out)
	}
	return out, nil
}

func exportTrained(t *trained, path string) error {
	if filepath.Ext(path) == weightsExtension {
		return models.WriteTensors(path, t.network)
	}
	model, err := train.Export(t.network, t.data.Test, t.config.Metadata(t.network))
	if err != nil {
		return err
	}
	return integer.Save(path, model)
}

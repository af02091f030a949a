package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/train"
	"github.com/spf13/cobra"
)

// scores is what `goqat eval` tells.
type scores struct {
	Data      string   `json:"data"`
	Images    int      `json:"images"`
	Network   *float64 `json:"fake_quant,omitempty"` // of the graph in evaluation mode
	Integer   *float64 `json:"integer,omitempty"`
	Agreement *float64 `json:"agreement,omitempty"`
}

func newEval() *cobra.Command {
	var data, dataDir string
	var asJSON bool
	c := &cobra.Command{
		Use:   "eval RUN|CHECKPOINT|MODEL.goq",
		Short: "Score a run, a checkpoint or an integer model on the test set",
		Args:  arguments(1, 1, "one run folder, checkpoint or .goq file"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := evaluate(args[0], data, dataDir)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(s)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s, %d test images\n", s.Data, s.Images)
			if s.Network != nil {
				fmt.Fprintf(c.OutOrStdout(), "network    %.4f\n", *s.Network)
			}
			if s.Integer != nil {
				fmt.Fprintf(c.OutOrStdout(), "integer    %.4f\n", *s.Integer)
			}
			if s.Agreement != nil {
				fmt.Fprintf(c.OutOrStdout(), "agreement  %.4f\n", *s.Agreement)
			}
			return nil
		},
	}
	c.Flags().StringVar(&data, "data", "", "data set of a .goq file (default: the one it names)")
	c.Flags().StringVar(&dataDir, "data-dir", "", "folder of the data set's files")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// evaluate scores whatever is at path.
func evaluate(path, data, dataDir string) (*scores, error) {
	if strings.HasSuffix(path, ".goq") {
		model, err := integer.Load(path)
		if err != nil {
			return nil, err
		}
		return evaluateModel(model, path, data, dataDir)
	}
	if data != "" {
		return nil, usagef("eval: --data is for .goq files; %s names its data set", path)
	}
	t, err := openTrained(path, dataDir)
	if err != nil {
		return nil, err
	}
	return evaluateTrained(t, path)
}

func evaluateModel(model *integer.Model, path, data, dataDir string) (*scores, error) {
	if data == "" {
		data = model.Metadata["data"]
	}
	if data == "" {
		return nil, usagef("eval: %s does not name its data set: give --data", path)
	}
	split, err := loadData(data, dataDir)
	if err != nil {
		return nil, err
	}
	score, err := train.EvaluateModel(model, split.Test)
	if err != nil {
		return nil, err
	}
	return &scores{Data: data, Images: split.Test.Len(), Integer: &score.Accuracy}, nil
}

// evaluateTrained scores the network, and the folder's integer model with it.
func evaluateTrained(t *trained, path string) (*scores, error) {
	evaluator, err := train.NewEvaluator(t.network, 128)
	if err != nil {
		return nil, err
	}
	defer evaluator.Close()
	score, err := evaluator.Evaluate(t.data.Test)
	if err != nil {
		return nil, err
	}
	s := &scores{Data: t.config.Data, Images: t.data.Test.Len(), Network: &score.Accuracy}
	if !isFolder(path) || !exists(filepath.Join(path, train.ModelFile)) {
		return s, nil
	}
	model, err := openModel(path)
	if err != nil || model.Program == nil {
		return s, err
	}
	integers, err := train.EvaluateModel(model, t.data.Test)
	if err != nil {
		return nil, err
	}
	agreement := score.Agreement(integers)
	s.Integer, s.Agreement = &integers.Accuracy, &agreement
	return s, nil
}

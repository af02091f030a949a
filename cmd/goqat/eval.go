package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/layers"
	"github.com/goqat/goqat/models"
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
	var e evalCommand
	var asJSON bool
	c := &cobra.Command{
		Use:   "eval RUN|CHECKPOINT|MODEL.goq",
		Short: "Score a run, a checkpoint or an integer model on the test set",
		Args:  arguments(1, 1, "one run folder, checkpoint or .goq file"),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := e.evaluate(args[0])
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
	c.Flags().StringVar(&e.data, "data", "", "data set of a .goq file (default: the one it names) or of --model")
	c.Flags().StringVar(&e.dataDir, "data-dir", "", "folder of the data set's files")
	c.Flags().StringVar(&e.model, "model", "", "network that the weights of a PyTorch or safetensors file belong to")
	c.Flags().StringVar(&e.normalize, "normalize", "", "normalization of pixels with --model, instead of the data set's own: "+strings.Join(datasets.Normalizations(), ", "))
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// evalCommand holds the flags of `goqat eval` that say what is scored on what.
type evalCommand struct{ data, dataDir, model, normalize string }

// evaluate scores whatever is at path.
func (e *evalCommand) evaluate(path string) (*scores, error) {
	if e.model != "" {
		return e.evaluateFile(path)
	}
	if e.normalize != "" {
		return nil, usagef("eval: --normalize goes with --model; runs and .goq files know their own")
	}
	if strings.HasSuffix(path, ".goq") {
		model, err := integer.Load(path)
		if err != nil {
			return nil, err
		}
		return evaluateModel(model, path, e.data, e.dataDir)
	}
	if e.data != "" {
		return nil, usagef("eval: --data is for .goq files and --model; %s names its data set", path)
	}
	t, err := openTrained(path, e.dataDir)
	if other := new(train.CheckpointError); errors.As(err, &other) && !isFolder(path) {
		return nil, fmt.Errorf("%w; weights of PyTorch or safetensors files need --model", err)
	}
	if err != nil {
		return nil, err
	}
	return evaluateTrained(t, path)
}

// evaluateFile scores a float network whose weights come from a PyTorch or safetensors file.
func (e *evalCommand) evaluateFile(path string) (*scores, error) {
	if e.data == "" {
		return nil, usagef("eval: --model needs --data")
	}
	config := train.DefaultConfig()
	config.Model, config.Data = e.model, e.data
	if _, err := models.Lookup(e.model); err != nil {
		return nil, err
	}
	data, err := loadData(e.data, e.dataDir, e.normalize)
	if err != nil {
		return nil, err
	}
	network, err := builder(config, data.Test)(layers.Methods{})
	if err != nil {
		return nil, err
	}
	if err := importTensors(path, network); err != nil {
		return nil, err
	}
	return evaluateTrained(&trained{config: config, data: data, network: network}, path)
}

func evaluateModel(model *integer.Model, path, data, dataDir string) (*scores, error) {
	if data == "" {
		data = model.Metadata["data"]
	}
	if data == "" {
		return nil, usagef("eval: %s does not name its data set: give --data", path)
	}
	split, err := loadData(data, dataDir, "")
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
	evaluator, err := train.NewEvaluator(t.network, train.EvaluationBatch)
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

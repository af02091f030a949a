package train

import (
	"encoding/json"
	"fmt"

	"github.com/goqat/goqat/internal/atomicfile"
)

// Result is what a run ends in, result.json. Accuracies are shares of the whole test set, of the last epoch; what a
// run does not have (integers with float activations, quantization in a float run) is null.
type Result struct {
	Model           string     `json:"model"`
	Data            string     `json:"data"`
	Weights         string     `json:"weights"`
	Acts            string     `json:"acts"`
	Seed            uint64     `json:"seed"`
	Epochs          int        `json:"epochs"` // of both phases
	Accuracy        Accuracies `json:"accuracy"`
	Agreement       *float64   `json:"agreement"`        // share of test images of equal class, fake-quantized and integer
	LogitDifference *float64   `json:"logit_difference"` // largest between the two
	WeightsSHA256   string     `json:"weights_sha256"`
	Bytes           Sizes      `json:"bytes"`
	Seconds         float64    `json:"seconds"`           // of the whole run, interruptions left out
	ImagesPerSecond float64    `json:"images_per_second"` // in training steps, both phases
}

// Accuracies of one set of weights, as float, fake-quantized and integer network.
type Accuracies struct {
	Float     *float64 `json:"float"` // before quantization
	FakeQuant *float64 `json:"fake_quant"`
	Integer   *float64 `json:"integer"`
}

// Sizes in bytes: of all weights and biases as float32, and of model.goq.
type Sizes struct {
	Float   int  `json:"float"`
	Integer *int `json:"integer"`
}

// saveJSON writes a result.
func saveJSON(path string, result any) error {
	text, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return fmt.Errorf("train: result: %w", err)
	}
	if err := atomicfile.Write(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return nil
}

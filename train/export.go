package train

import (
	"fmt"

	"github.com/goqat/goqat/datasets"
	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/layers"
)

// Export makes the integer model of a network for images normalized as the data set's. A network whose activations
// stay real has no program: its model holds the codes and tables of its weights.
func Export(network *layers.Network, d *datasets.Dataset, metadata map[string]string) (*integer.Model, error) {
	pixel := make([][256]float32, d.Channels)
	for c := range pixel {
		pixel[c] = d.PixelTable(c)
	}
	model, err := network.Lower(pixel, d.Classes)
	if err != nil {
		return nil, err
	}
	model.Metadata = metadata
	return model, nil
}

// EvaluateModel scores an integer model on a data set with integer arithmetic alone. The loss is not computed.
func EvaluateModel(model *integer.Model, d *datasets.Dataset) (Evaluation, error) {
	if model.Program == nil {
		return Evaluation{}, fmt.Errorf("train: the model has float activations and no integer program")
	}
	if in := model.Input; in.Channels != d.Channels || in.Height != d.Height || in.Width != d.Width {
		return Evaluation{}, fmt.Errorf("train: the model takes images of %v, %s has %dx%dx%d", in, d.Name, d.Channels, d.Height, d.Width)
	}
	if len(model.Classes) != len(d.Classes) {
		return Evaluation{}, fmt.Errorf("train: the model tells %d classes apart, %s has %d", len(model.Classes), d.Name, len(d.Classes))
	}
	logits, err := model.Program.Run(d.Pixels)
	if err != nil {
		return Evaluation{}, fmt.Errorf("train: %w", err)
	}
	score := Evaluation{Classes: integer.Argmax(logits, len(model.Classes)), logits: make([]float32, len(logits))}
	for i, v := range logits {
		score.logits[i] = float32(float64(v) * model.LogitScale) // exact: below 2^24, and a power of two
	}
	right := 0
	for i, class := range score.Classes {
		if class == int(d.Labels[i]) {
			right++
		}
	}
	score.Accuracy = float64(right) / float64(d.Len())
	return score, nil
}

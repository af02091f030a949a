package integer

import "fmt"

// Model is a trained network as it is deployed: a program of integers, the weights it was made from, and
// what its input and output mean.
type Model struct {
	Program    *Program          // nil where activations stay real; then Layers alone describe the network
	Layers     []Layer           // Program.Weights[i] are the integers of Layers[i]
	Classes    []string          // names, in the order of the logits; may be empty without a program
	Input      Shape             // of an image
	LogitScale float64           // what one unit of a logit is worth, a power of two; 0 without a program
	Metadata   map[string]string // free text: method, accuracy, license
}

// Layer holds the weights of one convolution or matrix product, as they were trained. What
// normalization made of scale and bias is in the program's requantizers.
type Layer struct {
	Name    string
	Weights Weights
	Bias    []float32 // [O], real, or nil
}

// Argmax returns the predicted class of each image: the index of its largest logit, and of equal ones
// the lowest. logits is [n][classes], classes at least 1.
func Argmax(logits []int32, classes int) []int {
	best := make([]int, len(logits)/classes)
	for i := range best {
		row := logits[i*classes : (i+1)*classes]
		for class, logit := range row {
			if logit > row[best[i]] {
				best[i] = class
			}
		}
	}
	return best
}

// Validate reports the first thing that contradicts the field comments, or nil.
func (m *Model) Validate() error {
	if !m.Input.valid() {
		return fmt.Errorf("integer: input shape %v: want positive sizes and less than 2^31 elements", m.Input)
	}
	for i := range m.Layers {
		if err := m.Layers[i].validate(); err != nil {
			return locate(err, "layer %q", m.Layers[i].Name)
		}
	}
	if m.Program == nil {
		return m.validateWithoutProgram()
	}
	return m.validateProgram()
}

func (l *Layer) validate() error {
	if err := l.Weights.Validate(); err != nil {
		return err
	}
	if l.Bias != nil && len(l.Bias) != l.Weights.Shape[0] {
		return fmt.Errorf("integer: %d biases: want %d", len(l.Bias), l.Weights.Shape[0])
	}
	for o, b := range l.Bias {
		if !finite(float64(b)) {
			return fmt.Errorf("integer: bias %v of channel %d: want a finite number", b, o)
		}
	}
	return nil
}

func (m *Model) validateWithoutProgram() error {
	if m.LogitScale != 0 {
		return fmt.Errorf("integer: logit scale %v without a program: want 0", m.LogitScale)
	}
	return nil
}

func (m *Model) validateProgram() error {
	if !powerOfTwo(m.LogitScale) {
		return fmt.Errorf("integer: logit scale %v: want a positive power of two", m.LogitScale)
	}
	if m.Program.Input != m.Input || m.Program.Classes != len(m.Classes) {
		return fmt.Errorf("integer: program of input %v and %d classes in a model of %v and %d", m.Program.Input, m.Program.Classes, m.Input, len(m.Classes))
	}
	if len(m.Program.Weights) != len(m.Layers) {
		return fmt.Errorf("integer: program with %d weight tensors in a model of %d layers", len(m.Program.Weights), len(m.Layers))
	}
	for i := range m.Layers {
		if !m.Program.Weights[i].equal(m.Layers[i].Weights.integers()) {
			return fmt.Errorf("integer: layer %q differs from the program's weights", m.Layers[i].Name)
		}
	}
	return m.Program.Validate()
}

package train

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/goqat/goqat/internal/atomicfile"
)

// Phase is one of the two trainings of a run.
type Phase uint8

// The phases in their order.
const (
	FloatPhase Phase = iota
	QuantizedPhase
)

func (p Phase) String() string { return [...]string{"float", "quantized"}[p] }

// Metric is a line of metrics.jsonl: an epoch's training loss and the score after it.
type Metric struct {
	Phase          string        `json:"phase"`
	Epoch          int           `json:"epoch"`
	Step           int           `json:"step"`
	Loss           float64       `json:"loss"`          // mean over the epoch's steps
	LearningRate   float64       `json:"learning_rate"` // of the epoch's last step
	Scored         string        `json:"scored_on"`     // "test" or "validation"
	Accuracy       float64       `json:"accuracy"`      // in evaluation mode
	EvaluationLoss float64       `json:"evaluation_loss"`
	Search         *SearchMetric `json:"search,omitempty"` // where weights are searched for
}

// writeMetrics writes all lines so far, so that a resumed run's file is that of one never interrupted.
func writeMetrics(path string, metrics []Metric) error {
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	for _, m := range metrics {
		if err := lines.Encode(m); err != nil {
			return fmt.Errorf("train: metrics: %w", err)
		}
	}
	if err := atomicfile.Write(path, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return nil
}

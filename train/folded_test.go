package train

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
)

// foldedNetwork is the small net with batch normalization folded into the quantization of weights.
func foldedNetwork(weights string) (*layers.Network, error) {
	m := methods(weights, "lsq:4")
	m.FoldBatchNorm = true
	return normalizedNetwork(m, 0, 1)
}

// A network with folded normalization learns, in every grain of scales, and its integers agree with it.
func TestFoldedTrainingLearns(t *testing.T) {
	d := digits(t, 200, 100)
	for _, weights := range []string{"lsq:4", "lsq:3,per=channel", "linear:4,asymmetric"} {
		network, err := foldedNetwork(weights)
		require.NoError(t, err)
		require.NoError(t, Calibrate(network, d.Train, 100))
		var losses []float64
		trainer := Trainer{Network: network, Data: d.Train, Epochs: 6, Batch: 20, LearningRate: 0.02, AfterStep: func(s Step) error {
			if s.EpochDone {
				losses = append(losses, s.MeanLoss())
			}
			return nil
		}}
		require.NoError(t, trainer.Run(t.Context()))
		require.NoError(t, trainer.Close())
		require.Less(t, losses[5], 0.6*losses[0], "%s: %v", weights, losses)

		evaluator, err := NewEvaluator(network, 50)
		require.NoError(t, err)
		score, err := evaluator.Evaluate(d.Test)
		require.NoError(t, err)
		require.NoError(t, evaluator.Close())
		model, err := Export(network, d.Test, nil)
		require.NoError(t, err)
		integers, err := EvaluateModel(model, d.Test)
		require.NoError(t, err)
		require.Equal(t, score.Classes, integers.Classes, weights)
	}
}

// Calibration takes the statistics of the float network: with those of another, steps of weights are others.
func TestFoldedCalibrationSeesStatistics(t *testing.T) {
	d := digits(t, 60, 1).Train
	step := func(variance float32) float32 {
		network, err := foldedNetwork("lsq:4")
		require.NoError(t, err)
		params := map[string]*layers.Param{}
		for _, p := range network.Params() {
			params[p.Name] = p
		}
		for c := range params["bn1.running_var"].Data() {
			params["bn1.running_var"].Data()[c] = variance
		}
		require.NoError(t, Calibrate(network, d, 60))
		return params["conv1.weight.step"].Data()[0]
	}
	require.InEpsilon(t, 2*step(4), step(1), 1e-4)
}

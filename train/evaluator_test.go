package train

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/layers"
)

// Predictions do not depend on how images are put together, and every image is scored once.
func TestEvaluationDoesNotDependOnTheBatch(t *testing.T) {
	split := digits(t, 100, 130)
	for _, m := range []layers.Methods{methods("none", "none"), methods("lsq:4", "lsq:4"), methods("linear:8", "linear:8,asymmetric"), methods("none", "linear:4")} {
		network := newSmall(t, m, split.Train)
		var first Evaluation
		for _, batch := range []int{1, 16, 100, 128, 200} {
			evaluator, err := NewEvaluator(network, batch)
			require.NoError(t, err)
			score, err := evaluator.Evaluate(split.Test)
			require.NoError(t, err)
			again, err := evaluator.Evaluate(split.Test)
			require.NoError(t, err)
			require.Equal(t, score, again, "a second evaluation")
			require.NoError(t, evaluator.Close())
			require.Len(t, score.Classes, 130)
			if batch == 1 {
				first = score
				continue
			}
			require.Equal(t, first.Classes, score.Classes, "%v, batch %d", m, batch)
			require.Equal(t, first.Accuracy, score.Accuracy)
			require.InEpsilon(t, first.Loss, score.Loss, 1e-9)
		}
		right, loss := 0, 0.0
		evaluator, err := NewEvaluator(network, 7)
		require.NoError(t, err)
		for i, class := range first.Classes {
			logits, err := evaluator.Logits(split.Test, []int{i})
			require.NoError(t, err)
			require.Len(t, logits, 10)
			for k, l := range logits {
				require.LessOrEqual(t, l, logits[class], "image %d, class %d", i, k)
			}
			loss += smoothedLoss(logits, int(split.Test.Labels[i]), 0) / 130
			if class == int(split.Test.Labels[i]) {
				right++
			}
		}
		require.Equal(t, float64(right)/130, first.Accuracy)
		require.InEpsilon(t, loss, first.Loss, 1e-5)
	}
}

// An evaluator sees parameters as they are when it is asked.
func TestEvaluatorFollowsParameters(t *testing.T) {
	split := digits(t, 100, 60)
	network := newSmall(t, methods("lsq:4", "lsq:4"), split.Train)
	evaluator, err := NewEvaluator(network, 32)
	require.NoError(t, err)
	before, err := evaluator.Evaluate(split.Test)
	require.NoError(t, err)
	trainer := Trainer{Network: network, Data: split.Train, Epochs: 2, Batch: 20, LearningRate: 0.05}
	require.NoError(t, trainer.Run(t.Context()))
	after, err := evaluator.Evaluate(split.Test)
	require.NoError(t, err)
	require.NotEqual(t, before.Loss, after.Loss)
	fresh, err := NewEvaluator(network, 32)
	require.NoError(t, err)
	want, err := fresh.Evaluate(split.Test)
	require.NoError(t, err)
	require.Equal(t, want, after)
}

func TestAgreement(t *testing.T) {
	t.Parallel()
	a, b := Evaluation{Classes: []int{1, 2, 3, 4}}, Evaluation{Classes: []int{1, 2, 0, 0}}
	require.Equal(t, 0.5, a.Agreement(b))
	require.Equal(t, 1.0, a.Agreement(a))
	require.Equal(t, 0.0, a.Agreement(Evaluation{Classes: []int{0, 0, 0, 0}}))
}

func TestEvaluatorRefuses(t *testing.T) {
	t.Parallel()
	d, network := counted(t, 30)
	_, err := NewEvaluator(network, 0)
	require.EqualError(t, err, "train: evaluation batch of 0 images: want at least 1")
	_, err = NewEvaluator(network, 1<<30)
	require.EqualError(t, err, "train: a batch of 1073741824 images of 1x2x2 makes a tensor of more than 2^31 elements; use a smaller batch")
	evaluator, err := NewEvaluator(network, 8)
	require.NoError(t, err)
	_, err = evaluator.Evaluate(digits(t, 1, 5).Test)
	require.EqualError(t, err, "train: the network takes images of 1x2x2, mnist has 1x28x28")
	_, err = evaluator.Evaluate(d.Slice(3, 3))
	require.EqualError(t, err, "train: counted has no images")
	_, err = evaluator.Logits(digits(t, 1, 5).Test, []int{0})
	require.EqualError(t, err, "train: the network takes images of 1x2x2, mnist has 1x28x28")
	_, err = evaluator.Logits(d, make([]int, 9))
	require.EqualError(t, err, "train: logits of 9 images: the evaluator takes at most 8")
}

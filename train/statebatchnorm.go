package train

import (
	"context"

	"github.com/goqat/goqat/layers"
)

// hardImages is how many training images the statistics of hard weights are taken of where steps do not take them.
const hardImages = 4096

// takeHard takes the statistics of hard weights, in state batch normalization, anew. A search begins with it: what it starts
// from are statistics of the float network's weights, which are of another size.
func (e *Experiment) takeHard(t *Trainer) error {
	if !e.Config.StateBN.On || !t.Network.TakesStateBatchNorm() {
		return nil
	}
	r := &Reestimation{
		Data: t.Data, Images: min(hardImages, t.Data.Len()), Batch: e.Config.Batch, Augmentation: t.Augmentation, Seed: t.Seed, Branch: layers.HardBranch,
	}
	_, err := r.Run(context.Background(), t.Network)
	return err
}

// retakeHard does so at the end of an epoch, if steps of training do not, unless batch normalization was frozen in it.
func (e *Experiment) retakeHard(t *Trainer) error {
	if e.Config.StateBN.Every > 0 || t.graph.frozen {
		return nil
	}
	return e.takeHard(t)
}

package train

import "github.com/goqat/goqat/layers"

// batchNorms returns the batch normalizations of a layer and those inside it.
func batchNorms(root layers.Layer) []*layers.BatchNorm {
	switch l := root.(type) {
	case *layers.BatchNorm:
		return []*layers.BatchNorm{l}
	case *layers.Residual:
		return append(batchNorms(l.Body), batchNorms(l.Shortcut)...)
	case layers.Sequential:
		var found []*layers.BatchNorm
		for _, inside := range l {
			found = append(found, batchNorms(inside)...)
		}
		return found
	}
	return nil
}

// freeze makes training graphs that are built from now on use a network's running statistics and leave them alone. The
// function that it returns undoes that.
func freeze(network *layers.Network) (undo func(), err error) {
	found, err := reachedNorms(network)
	if err != nil {
		return nil, err
	}
	before := make([]bool, len(found))
	for i, l := range found {
		before[i], l.Frozen = l.Frozen, true
	}
	return func() {
		for i, l := range found {
			l.Frozen = before[i]
		}
	}, nil
}

package layers

import (
	"math"

	"github.com/goqat/goqat/quantops"
)

// Annealing is the state of the search at a step of training.
type Annealing struct {
	Temperature float64 // of the choice among values; 0 makes it one-hot
	Step        int     // of training, from 0
}

// Anneal sets the state of the search for the weights of all layers that search.
func (n *Network) Anneal(a Annealing) {
	walk(n.Root, func(l Layer) {
		owner, ok := l.(interface{ core() *weighted })
		if !ok {
			return
		}
		w := owner.core()
		if weight, ok := w.weight.(*searched); ok {
			weight.temperature.Data()[0] = float32(a.Temperature)
		}
		if w.hard != nil {
			w.hard.step = a.Step
		}
	})
}

// Searches says whether the weights of any layer are searched for.
func (n *Network) Searches() (found bool) {
	walk(n.Root, func(l Layer) {
		if owner, ok := l.(interface{ core() *weighted }); ok {
			found = found || owner.core().searching() != nil
		}
	})
	return found
}

// TakesStateBatchNorm says whether batch normalization is behind weights of any layer that are searched for, so that a
// [StateBatchNorm] has an effect.
func (n *Network) TakesStateBatchNorm() (found bool) {
	n.weighted(func(w *weighted) { found = found || w.norm != nil })
	return found
}

// SearchState tells how far the search for the weights of a layer has come.
type SearchState struct {
	Layer       string
	Weights     int
	Temperature float64 // 0 for a one-hot choice
	Entropy     float64 // of the choice, in bits, mean over weights
	Gap         float64 // √(Σ (soft - hard)² / Σ hard²)
}

// SearchStates tells so of all layers that search, in their order.
func (n *Network) SearchStates() []SearchState {
	var states []SearchState
	walk(n.Root, func(l Layer) {
		if owner, ok := l.(interface{ core() *weighted }); ok && owner.core().searching() != nil {
			w := owner.core()
			state := w.weight.(*searched).state()
			state.Layer = w.name
			states = append(states, state)
		}
	})
	return states
}

// state tells how far the search has come.
func (w *searched) state() SearchState {
	temperature, n := w.temperature.Data()[0], w.count()
	s := SearchState{Weights: n, Temperature: float64(temperature), Entropy: quantops.Entropy(w.logits.Data(), len(w.search.Levels), temperature)}
	if temperature == 0 {
		return s
	}
	difference, size, soft := 0.0, 0.0, w.softValues()
	for i, v := range w.values() {
		d := float64(soft[i]) - float64(v)
		difference, size = difference+float64(d*d), size+float64(float64(v)*float64(v))
	}
	s.Gap = math.Sqrt(difference / size)
	return s
}

package quantops

import "fmt"

// Moments are what a linear map's data say about its weights: of inputs X [samples][K] and wanted outputs Y
// [samples][outputs], everything that the squared error of outputs depends on,
//
//	‖Y - X·Wᵀ‖² = Σ_o energy[o] - 2·cross[o]·W[o] + W[o]ᵀ·gram·W[o]
//
// A convolution is such a map for each of its groups: a sample is what one output place of one image takes in.
type Moments struct {
	Samples int
	Inputs  int       // K, the weights of an output
	Gram    []float64 // XᵀX, [K][K]
	Cross   []float64 // YᵀX, [outputs][K]; nil where Y is what the layer's own weights make of X
	Energy  []float64 // Σ Y², [outputs]; nil with Cross
}

// Finite says whether all moments are finite.
func (m *Moments) Finite() bool {
	for _, sums := range [][]float64{m.Gram, m.Cross, m.Energy} {
		for _, v := range sums {
			if v-v != 0 {
				return false
			}
		}
	}
	return true
}

func (m *Moments) check(outputs, inputs int) error {
	cross, energy := outputs*inputs, outputs
	if m.Cross == nil {
		cross, energy = 0, 0
	}
	if m.Inputs != inputs || len(m.Gram) != inputs*inputs || len(m.Cross) != cross || len(m.Energy) != energy {
		return fmt.Errorf("quantops: moments of %d inputs for %d weights of each of %d outputs", m.Inputs, inputs, outputs)
	}
	if !m.Finite() {
		return fmt.Errorf("quantops: moments are not finite")
	}
	return nil
}

// Solver is a Quantizer of weights that also chooses them, and its parameters, by what they do to a layer's outputs.
type Solver interface {
	Quantizer
	// Solve replaces the real weights w, [outputs][inputs of a group], by such that lie on the grid, and sets theta to
	// that grid. Groups holds the moments of every group of channels.
	Solve(w, theta []float32, groups []Moments) (Solution, error)
}

// Solution tells what a Solver has reached: squared errors ‖Y - X·Ŵᵀ‖² of all outputs.
type Solution struct {
	Start   float64 // of the weights that Fit gives
	Error   float64 // of the solution
	Energy  float64 // of the outputs themselves, ‖Y‖²
	Sweeps  int     // that the search took
	Settled bool    // whether it ended because nothing moved
}

// add takes in the solution of another group.
func (s *Solution) add(other Solution) {
	first := s.Sweeps == 0
	s.Start, s.Error, s.Energy = s.Start+other.Start, s.Error+other.Error, s.Energy+other.Energy
	s.Sweeps, s.Settled = max(s.Sweeps, other.Sweeps), other.Settled && (first || s.Settled)
}

// Solves says whether the method's weights can be searched for by a [Solver].
func (m Method) Solves() bool {
	q, err := m.Quantizer(Target{Role: Weights, Channels: 1, Size: 1, Signed: true})
	_, ok := q.(Solver)
	return ok && err == nil
}

package quantops

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

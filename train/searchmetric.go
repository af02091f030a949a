package train

import "github.com/goqat/goqat/layers"

// SearchMetric tells how far the search for weights has come at the end of an epoch. The metric's own accuracy is that of
// hard weights with their own statistics: of what would be deployed.
type SearchMetric struct {
	Temperature float64  `json:"temperature"`                  // of the last step; 0 for a one-hot choice
	Entropy     float64  `json:"entropy_bits"`                 // of the choice, mean over weights
	Gap         float64  `json:"weight_gap"`                   // of soft and hard weights, over the size of the hard ones, mean over weights
	Soft        float64  `json:"soft_accuracy"`                // of soft weights with their statistics
	Unmatched   *float64 `json:"unmatched_accuracy,omitempty"` // of hard weights with the statistics of soft ones; without state batch normalization there is no other
}

// searchEvaluators score what the usual evaluator does not see of a search; nil where there is none.
type searchEvaluators struct{ soft, unmatched *Evaluator }

func newSearchEvaluators(network *layers.Network, state layers.StateBatchNorm) (s searchEvaluators, err error) {
	if !network.Searches() {
		return s, nil
	}
	if s.soft, err = NewBranchEvaluator(network, EvaluationBatch, layers.SoftBranch); err == nil && state.On && network.TakesStateBatchNorm() {
		s.unmatched, err = NewBranchEvaluator(network, EvaluationBatch, layers.UnmatchedBranch)
	}
	return s, err
}

// searchMetric measures the search; nil where there is none.
func (e *Experiment) searchMetric(network *layers.Network) (*SearchMetric, error) {
	if e.search.soft == nil {
		return nil, nil
	}
	m, weights := &SearchMetric{}, 0.0
	for _, s := range network.SearchStates() {
		n := float64(s.Weights)
		m.Temperature, weights = s.Temperature, weights+n
		m.Entropy, m.Gap = m.Entropy+float64(n*s.Entropy), m.Gap+float64(n*s.Gap)
	}
	m.Entropy, m.Gap = m.Entropy/weights, m.Gap/weights
	_, scored, err := e.trainingData()
	if err != nil {
		return nil, err
	}
	score, err := e.search.soft.Evaluate(scored)
	if err != nil {
		return nil, err
	}
	m.Soft = score.Accuracy
	if e.search.unmatched != nil {
		if score, err = e.search.unmatched.Evaluate(scored); err != nil {
			return nil, err
		}
		m.Unmatched = &score.Accuracy
	}
	return m, nil
}

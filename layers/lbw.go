package layers

import (
	"fmt"

	"github.com/goqat/goqat/quantops"
)

// LBWConv2D returns a convolution whose weights are searched for among 2^bits values from -1 to 1, with state batch
// normalization in every step behind it: what Methods.Weights "lbw:BITS" makes of any convolution.
func LBWConv2D(bits int, c Conv2D) (*Conv2D, error) {
	var err error
	c.Methods, err = c.Methods.searching(bits)
	return &c, err
}

// LBWLinear is LBWConv2D for a linear layer.
func LBWLinear(bits int, l Linear) (*Linear, error) {
	var err error
	l.Methods, err = l.Methods.searching(bits)
	return &l, err
}

// searching returns m with weights that are searched for.
func (m Methods) searching(bits int) (Methods, error) {
	weights, err := quantops.Parse(fmt.Sprintf("lbw:%d", bits))
	m.Weights, m.State = weights, StateBatchNorm{On: true, Every: 1}
	return m, err
}

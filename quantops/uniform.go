package quantops

import (
	"fmt"

	"github.com/goqat/goqat/integer"
	"github.com/goqat/goqat/internal/kernel"
)

// smallestScale is the least step size, 2^-23, for tensors that are all zero.
const smallestScale = 1.0 / (1 << 23)

// codes is a range of integer codes of equal steps.
type codes struct {
	bits     int
	min, max int32
}

// unsignedCodes are 0 … 2^bits-1.
func unsignedCodes(bits int) codes { return codes{bits, 0, 1<<bits - 1} }

// signedCodes are -2^(bits-1) … 2^(bits-1)-1; narrow leaves out the first, so that the range is symmetric.
func signedCodes(bits int, narrow bool) codes {
	c := codes{bits, -1 << (bits - 1), 1<<(bits-1) - 1}
	if narrow {
		c.min++
	}
	return c
}

// uniform is the linear arithmetic of one channel: level = clamp(round(x/scale), low, high), code = level + zero.
func (c codes) uniform(scale float32, zero int32) kernel.Uniform {
	return kernel.Uniform{Scale: scale, Low: float32(c.min - zero), High: float32(c.max - zero)}
}

// eachChannel calls do with the elements of every channel.
func eachChannel(channels int, x []float32, do func(channel, from, to int)) {
	n := len(x) / channels
	for c := range channels {
		do(c, c*n, (c+1)*n)
	}
}

// grid is the integer coding of activations with these codes.
func (c codes) grid(scale float32, zero int32) (integer.Grid, error) {
	g := integer.Grid{Bits: uint8(c.bits), Scale: scale, Zero: zero, Min: c.min, Max: c.max}
	return g, g.Validate()
}

// encode turns levels of weights into integers. Without zero points a code is the level in two's complement. With
// them code - 2^(bits-1) is one plane, and the constant 2^(bits-1) - zero, which differs by channel, the other.
func (c codes) encode(levels []float32, scales []float32, zeros []int32, shape []int) (*integer.Weights, error) {
	w := &integer.Weights{Shape: shape, Bits: uint8(c.bits), Codes: make([]uint16, len(levels))}
	outputs := shape[0]
	w.Planes = []integer.Plane{{Table: integer.SignedTable(w.Bits), Scale: make([]float64, outputs)}}
	for o := range outputs {
		w.Planes[0].Scale[o] = float64(scales[o%len(scales)])
	}
	if zeros != nil {
		c.addZeroPlane(w, zeros)
	}
	n := len(levels) / outputs
	for i, level := range levels {
		if level != level {
			return nil, fmt.Errorf("quantops: weight %d is not a number", i)
		}
		code := int32(level)
		if zeros != nil {
			code += zeros[i/n%len(zeros)]
		}
		if code < c.min || code > c.max {
			return nil, fmt.Errorf("quantops: weight %d has code %d outside [%d, %d]", i, code, c.min, c.max)
		}
		w.Codes[i] = uint16(code) & (1<<c.bits - 1)
	}
	return w, w.Validate()
}

// addZeroPlane makes w the planes of unsigned codes with zero points.
func (c codes) addZeroPlane(w *integer.Weights, zeros []int32) {
	middle := int32(1) << (c.bits - 1)
	constant := integer.Plane{Table: make([]int8, 1<<c.bits), Scale: make([]float64, len(w.Planes[0].Scale))}
	for code := range constant.Table {
		w.Planes[0].Table[code] = int8(int32(code) - middle)
		constant.Table[code] = 1
	}
	for o := range constant.Scale {
		constant.Scale[o] = w.Planes[0].Scale[o] * float64(middle-zeros[o%len(zeros)])
	}
	w.Planes = append(w.Planes, constant)
}

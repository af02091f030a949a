// Package random gives named streams of random numbers that stay the same for ever.
//
// A stream is fixed by a seed and a name ("init", "shuffle/3", …): its 128 bits of state are the first 16 bytes of
// SHA-256(seed as 8 little-endian bytes, name), its engine is PCG-DXSM. Only the engine's raw 64-bit outputs are
// used; everything derived from them is computed here, with operations whose bits are the same on every platform.
// Streams of different names are independent, so a part that draws more numbers disturbs no other part.
//
// A Stream is not safe for concurrent use.
package random

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"

	"github.com/goqat/goqat/internal/kernel"
)

// Stream is one named stream. Use New, or UnmarshalText on a zero Stream.
type Stream struct{ engine rand.PCG }

// New returns the stream of that seed and name, at its start.
func New(seed uint64, name string) *Stream {
	message := append(binary.LittleEndian.AppendUint64(nil, seed), name...)
	sum := sha256.Sum256(message)
	s := &Stream{}
	s.engine.Seed(binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:16]))
	return s
}

// Uint64 returns 64 random bits.
func (s *Stream) Uint64() uint64 { return s.engine.Uint64() }

// Below returns an integer of [0, n), each equally likely. It panics if n is 0, whose range is empty.
//
// The high word of Uint64()·n is kept unless the low word falls among the 2^64 mod n that would be counted twice
// (Lemire, "Fast Random Integer Generation in an Interval", 2019).
func (s *Stream) Below(n uint64) uint64 {
	if n == 0 {
		panic("random: Below(0) has no value to return")
	}
	excess := -n % n // 2^64 mod n
	for {
		high, low := bits.Mul64(s.Uint64(), n)
		if low >= excess {
			return high
		}
	}
}

// Float64 returns a multiple of 2^-53 of [0, 1), each equally likely.
func (s *Stream) Float64() float64 { return float64(s.Uint64()>>11) * 0x1p-53 }

// Float32 returns a multiple of 2^-24 of [0, 1), each equally likely.
func (s *Stream) Float32() float32 { return float32(s.Uint64()>>40) * 0x1p-24 }

// Normal returns a draw from the normal distribution of mean 0 and standard deviation 1.
//
// Marsaglia's polar method: with (u, v) uniform in the unit disc and q = u²+v², u·sqrt(−2·ln(q)/q) is normal. The
// method's second value, with v for u, is thrown away so that the engine's state is the stream's whole state.
func (s *Stream) Normal() float64 {
	for {
		u := 2*s.Float64() - 1
		v := 2*s.Float64() - 1
		q := float64(u*u) + float64(v*v)
		if q > 0 && q < 1 {
			return u * math.Sqrt(-2*kernel.Log(q)/q)
		}
	}
}

// Permutation returns the integers [0, n) in random order, each order equally likely (Fisher and Yates).
func (s *Stream) Permutation(n int) []int {
	p := make([]int, n)
	for i := range p {
		j := s.Below(uint64(i) + 1)
		p[i] = p[j]
		p[j] = i
	}
	return p
}

// The engine's own binary state is this prefix and 16 bytes.
const (
	statePrefix = "pcg:"
	stateBytes  = 16
)

// MarshalText returns the state as "pcg:" and 32 hexadecimal digits, for a checkpoint.
func (s *Stream) MarshalText() ([]byte, error) {
	state, err := s.engine.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("random: %w", err)
	}
	return hex.AppendEncode([]byte(statePrefix), state[len(statePrefix):]), nil
}

// UnmarshalText continues the stream where MarshalText was called.
func (s *Stream) UnmarshalText(text []byte) error {
	const want = len(statePrefix) + 2*stateBytes
	if len(text) != want || string(text[:len(statePrefix)]) != statePrefix {
		return fmt.Errorf("random: %.64q is no stream state, which is %q and %d hexadecimal digits", text, statePrefix, 2*stateBytes)
	}
	state, err := hex.AppendDecode([]byte(statePrefix), text[len(statePrefix):])
	if err != nil {
		return fmt.Errorf("random: stream state %.64q: %w", text, err)
	}
	if err := s.engine.UnmarshalBinary(state); err != nil {
		return fmt.Errorf("random: stream state %.64q: %w", text, err)
	}
	return nil
}

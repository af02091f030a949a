package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestSampleEqualsDefinition(t *testing.T) {
	stream := rand.New(rand.NewPCG(1, 1))
	for range 60 {
		s := &Sample{Blocks: 1 + stream.IntN(3), Channels: 1 + stream.IntN(4), Height: 1 + stream.IntN(9), Width: 1 + stream.IntN(9),
			Stride: 1 + stream.IntN(3), Before: stream.IntN(3), After: stream.IntN(3)}
		channels, height, width := s.Out()
		x := random(stream, s.Blocks*s.Channels*s.Height*s.Width*Lanes)
		dy := random(stream, s.Blocks*channels*height*width*Lanes)
		wantY, wantDX := make([]float32, len(dy)), make([]float32, len(x))
		for i := range dy {
			lane, column, row, plane := i%Lanes, i/Lanes%width, i/Lanes/width%height, i/Lanes/width/height
			channel := plane%channels - s.Before
			if channel < 0 || channel >= s.Channels {
				continue
			}
			at := (((plane/channels*s.Channels+channel)*s.Height+row*s.Stride)*s.Width+column*s.Stride)*Lanes + lane
			wantY[i], wantDX[at] = x[at], dy[i]
		}
		y, yIntact := guarded(t, len(dy))
		dx, dxIntact := guarded(t, len(x))
		s.Forward(y, x)
		s.Gradient(dx, dy)
		yIntact()
		dxIntact()
		requireSame(t, wantY, y, fmt.Sprintf("y of %+v", *s))
		requireSame(t, wantDX, dx, fmt.Sprintf("dx of %+v", *s))
	}
}

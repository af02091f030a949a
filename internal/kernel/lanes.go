package kernel

// Lanes is the number of images that stand side by side in a vector.
const Lanes = 16

// Blocks is the number of blocks of [Lanes] images that hold n images.
func Blocks(n int) int { return (n + Lanes - 1) / Lanes }

// Pack writes images [n][size] into blocks [Blocks(n)][size][Lanes]; lanes without an image become zero.
func Pack(dst, src []float32, n, size int) {
	for lane := range Blocks(n) * Lanes {
		block, l := lane/Lanes, lane%Lanes
		out := dst[block*size*Lanes:]
		for i := range size {
			v := float32(0)
			if lane < n {
				v = src[lane*size+i]
			}
			out[i*Lanes+l] = v
		}
	}
}

// Unpack is the inverse of [Pack] for the first n images.
func Unpack(dst, src []float32, n, size int) {
	for image := range n {
		in := src[image/Lanes*size*Lanes+image%Lanes:]
		for i := range size {
			dst[image*size+i] = in[i*Lanes]
		}
	}
}

// halve adds up sixteen lanes in the documented order: lane i takes lane i+8, then i+4, i+2, i+1.
func halve[F float32 | float64](v *[Lanes]F) F {
	for half := Lanes / 2; half > 0; half /= 2 {
		for i := range half {
			v[i] += v[i+half]
		}
	}
	return v[0]
}

// ClearPadding makes the lanes of a block that hold no image zero, images being how many there are from its first on.
func ClearPadding(x []float32, images int) {
	if images >= Lanes {
		return
	}
	for i := 0; i < len(x); i += Lanes {
		clear(x[i+images : i+Lanes])
	}
}

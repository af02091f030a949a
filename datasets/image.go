package datasets

import (
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"strings"
)

// maxImagePixels bounds what decoding a picture may allocate; 64 megapixels are more than cameras deliver.
const maxImagePixels = 64 << 20

// ReadImage reads a PNG or JPEG picture as an image of a data set, [channels][height][width]. channels is 1 (gray,
// luma of ITU-R BT.601) or 3 (red, green, blue). Transparent parts lie on black; orientation tags are ignored.
//
// A picture of another size is stretched by the area filter: an output pixel is the mean of the source pixels under it,
// each weighted by the covered part of its area, rounded half up. The filter is computed in integers and therefore exact.
//
// A picture that can't be decoded or has more than 64·2^20 pixels gives a *FormatError.
func ReadImage(path string, channels, height, width int) ([]uint8, error) {
	if channels != 1 && channels != 3 {
		return nil, fmt.Errorf("datasets: read a picture as %d channels; 1 (gray) and 3 (red, green, blue) are possible", channels)
	}
	if height < 1 || width < 1 || height > maxImagePixels/width {
		return nil, fmt.Errorf("datasets: read a picture as %d×%d pixels; 1 to %d in all are possible", height, width, maxImagePixels)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("datasets: %w", err)
	}
	defer f.Close()
	picture, err := decodePicture(f, path)
	if err != nil {
		return nil, err
	}
	return resize(picture, channels, height, width), nil
}

// decoder reads one kind of pictures. Those that other packages of a program register with package image are not used:
// nobody has asked for their kinds.
type decoder struct {
	magic  string
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

var decoders = []decoder{{"\x89PNG\r\n\x1a\n", png.DecodeConfig, png.Decode}, {"\xff\xd8", jpeg.DecodeConfig, jpeg.Decode}}

// pictureKind finds the decoder by the file's first bytes, and goes back to them.
func pictureKind(r io.ReadSeeker) (*decoder, error) {
	start := make([]byte, len(decoders[0].magic))
	n, _ := io.ReadFull(r, start)
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	for i := range decoders {
		if strings.HasPrefix(string(start[:n]), decoders[i].magic) {
			return &decoders[i], nil
		}
	}
	return nil, image.ErrFormat
}

// decodePicture looks at the size before it decodes.
func decodePicture(r io.ReadSeeker, name string) (image.Image, error) {
	kind, err := pictureKind(r)
	if err != nil {
		return nil, formatErrorf(name, "not a PNG or JPEG picture: %v", err)
	}
	config, err := kind.config(r)
	if err != nil {
		return nil, formatErrorf(name, "not a PNG or JPEG picture: %v", err)
	}
	if config.Width < 1 || config.Height < 1 || config.Height > maxImagePixels/config.Width {
		return nil, formatErrorf(name, "picture of %d×%d pixels; 1 to %d in all are possible", config.Height, config.Width, maxImagePixels)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("datasets: %s: %w", name, err)
	}
	picture, err := kind.decode(r)
	if err != nil {
		return nil, formatErrorf(name, "corrupt picture: %v", err)
	}
	return picture, nil
}

// resize applies the area filter row by row. Along an axis, cut every one of n source pixels into m parts; then each
// of the m output pixels covers exactly n parts, and all weights are integers that sum to n·(source height).
func resize(picture image.Image, channels, height, width int) []uint8 {
	bounds := picture.Bounds()
	row := image.NewRGBA(image.Rect(0, 0, bounds.Dx(), 1))
	values := make([]uint8, bounds.Dx())
	narrow := make([]uint64, width)
	sums := make([]uint64, channels*height*width)
	for y := range bounds.Dy() {
		draw.Draw(row, row.Bounds(), picture, image.Pt(bounds.Min.X, bounds.Min.Y+y), draw.Src)
		for c := range channels {
			channelOf(values, row.Pix, c, channels)
			clear(narrow)
			for x, v := range values {
				spread(x, bounds.Dx(), width, func(to int, parts uint64) { narrow[to] += parts * uint64(v) })
			}
			spread(y, bounds.Dy(), height, func(to int, parts uint64) {
				out := sums[(c*height+to)*width:]
				for x, sum := range narrow {
					out[x] += parts * sum
				}
			})
		}
	}
	area := uint64(bounds.Dx()) * uint64(bounds.Dy())
	pixels := make([]uint8, len(sums))
	for i, sum := range sums {
		pixels[i] = uint8((sum + area/2) / area)
	}
	return pixels
}

// spread calls add for every one of m output pixels that source pixel i of n overlaps, with the number of its m parts
// that lie there.
func spread(i, n, m int, add func(to int, parts uint64)) {
	at, stop := uint64(i)*uint64(m), uint64(i+1)*uint64(m)
	for at < stop {
		to := at / uint64(n)
		end := min((to+1)*uint64(n), stop)
		add(int(to), end-at)
		at = end
	}
}

// channelOf takes one channel out of a row of RGBA bytes. The luma weights 0.299, 0.587, 0.114 in units of 2^-16 sum
// to 2^16, so gray stays what it is.
func channelOf(values, rgba []uint8, channel, channels int) {
	for x := range values {
		p := rgba[4*x : 4*x+4]
		if channels == 3 {
			values[x] = p[channel]
			continue
		}
		values[x] = uint8((19595*uint32(p[0]) + 38470*uint32(p[1]) + 7471*uint32(p[2]) + 1<<15) >> 16)
	}
}

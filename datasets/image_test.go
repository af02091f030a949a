package datasets

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/goqat/goqat/internal/random"
)

func pngOf(t testing.TB, picture image.Image) []byte {
	var buffer bytes.Buffer
	require.NoError(t, png.Encode(&buffer, picture))
	return buffer.Bytes()
}

func write(t *testing.T, data []byte) string {
	path := filepath.Join(t.TempDir(), "picture")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// gray makes a picture whose bounds don't start at 0.
func gray(height, width int, pixels []uint8) *image.Gray {
	return &image.Gray{Pix: pixels, Stride: width, Rect: image.Rect(3, -2, 3+width, -2+height)}
}

func randomPixels(n int) []uint8 {
	s := random.New(1, "picture")
	pixels := make([]uint8, n)
	for i := range pixels {
		pixels[i] = uint8(s.Below(256))
	}
	return pixels
}

func TestReadImageOfTheSameSizeIsUnchanged(t *testing.T) {
	pixels := randomPixels(28 * 20)
	path := write(t, pngOf(t, gray(28, 20, pixels)))
	got, err := ReadImage(path, 1, 28, 20)
	require.NoError(t, err)
	require.Equal(t, pixels, got)
	got, err = ReadImage(path, 3, 28, 20)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat(pixels, 3), got)
}

func TestReadImageColors(t *testing.T) {
	picture := image.NewNRGBA(image.Rect(0, 0, 5, 1))
	for x, c := range []color.NRGBA{{255, 0, 0, 255}, {0, 255, 0, 255}, {0, 0, 255, 255}, {255, 255, 255, 0}, {200, 100, 50, 128}} {
		picture.SetNRGBA(x, 0, c)
	}
	path := write(t, pngOf(t, picture))
	got, err := ReadImage(path, 3, 1, 5)
	require.NoError(t, err)
	require.Equal(t, []uint8{255, 0, 0, 0, 100, 0, 255, 0, 0, 50, 0, 0, 255, 0, 25}, got)
	got, err = ReadImage(path, 1, 1, 5)
	require.NoError(t, err)
	require.Equal(t, []uint8{76, 150, 29, 0, 62}, got)
}

// areaMean is the definition of the filter with rational numbers.
func areaMean(pixels []uint8, height, width, toHeight, toWidth, y, x int) uint8 {
	overlap := func(i, n, j, m int) *big.Rat { // of source pixel i of n and output pixel j of m, in source pixels
		from := big.NewRat(max(int64(i)*int64(m), int64(j)*int64(n)), int64(m))
		to := big.NewRat(min(int64(i+1)*int64(m), int64(j+1)*int64(n)), int64(m))
		if to.Cmp(from) < 0 {
			return new(big.Rat)
		}
		return to.Sub(to, from)
	}
	sum := new(big.Rat)
	for i := range height {
		for j := range width {
			weight := new(big.Rat).Mul(overlap(i, height, y, toHeight), overlap(j, width, x, toWidth))
			sum.Add(sum, weight.Mul(weight, big.NewRat(int64(pixels[i*width+j]), 1)))
		}
	}
	sum.Mul(sum, big.NewRat(int64(toHeight*toWidth), int64(height*width)))
	sum.Add(sum, big.NewRat(1, 2))
	return uint8(new(big.Int).Quo(sum.Num(), sum.Denom()).Int64())
}

func TestResizeAgainstDefinition(t *testing.T) {
	for _, size := range [][4]int{{8, 8, 4, 4}, {7, 9, 4, 3}, {3, 5, 7, 8}, {1, 1, 3, 2}, {9, 4, 5, 11}, {2, 1, 1, 1}} {
		h, w, toH, toW := size[0], size[1], size[2], size[3]
		pixels := randomPixels(h * w)
		want := []uint8{}
		for y := range toH {
			for x := range toW {
				want = append(want, areaMean(pixels, h, w, toH, toW, y, x))
			}
		}
		require.Equal(t, want, resize(gray(h, w, pixels), 1, toH, toW), "%v", size)
	}
}

func TestReadImageJPEG(t *testing.T) {
	var buffer bytes.Buffer
	picture := gray(16, 16, bytes.Repeat([]uint8{200}, 256))
	require.NoError(t, jpeg.Encode(&buffer, picture, nil))
	got, err := ReadImage(write(t, buffer.Bytes()), 1, 2, 2)
	require.NoError(t, err)
	require.Equal(t, []uint8{200, 200, 200, 200}, got)
}

// pngHeader is a picture of that size that ends before its pixels.
func pngHeader(height, width uint32) []byte {
	chunk := append([]byte("IHDR"), binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, width), height)...)
	chunk = append(chunk, 8, 0, 0, 0, 0)
	out := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), chunk...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(chunk))
}

func TestReadImageRefusesFiles(t *testing.T) {
	whole := pngOf(t, gray(4, 4, make([]uint8, 16)))
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"empty":             {nil, "not a PNG or JPEG picture"},
		"text":              {[]byte("P2 1 1 255 0"), "not a PNG or JPEG picture"},
		"truncated header":  {whole[:20], "not a PNG or JPEG picture"},
		"truncated pixels":  {whole[:len(whole)-20], "corrupt picture"},
		"no pixels":         {pngHeader(4, 4), "corrupt picture"},
		"wrong checksum":    {changed(whole, -20), "corrupt picture"},
		"too many pixels":   {pngHeader(1<<13, 1<<13+1), "picture of 8192×8193 pixels; 1 to 67108864 in all are possible"},
		"far too wide":      {pngHeader(1, 1<<31-1), "picture of 1×2147483647 pixels"},
		"broken JPEG start": {[]byte("\xff\xd8\xff\xe0\x00\x10JFIF"), "not a PNG or JPEG picture"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, test.data)
			_, err := ReadImage(path, 1, 28, 28)
			require.ErrorContains(t, err, test.want)
			var format *FormatError
			require.ErrorAs(t, err, &format)
			require.Equal(t, path, format.File)
		})
	}
}

func TestReadImageRefusesArguments(t *testing.T) {
	for _, test := range []struct {
		channels, height, width int
		want                    string
	}{
		{2, 28, 28, "2 channels"}, {0, 28, 28, "0 channels"}, {4, 28, 28, "4 channels"},
		{1, 0, 28, "0×28 pixels"}, {1, 28, -1, "28×-1 pixels"}, {1, 1 << 30, 1 << 30, "pixels; 1 to 67108864"},
	} {
		_, err := ReadImage("picture.png", test.channels, test.height, test.width)
		require.ErrorContains(t, err, test.want)
	}
	_, err := ReadImage(filepath.Join(t.TempDir(), "missing.png"), 1, 28, 28)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// FuzzDecodePicture demands that no content makes decoding or resizing panic.
func FuzzDecodePicture(f *testing.F) {
	f.Add(pngOf(f, gray(4, 4, randomPixels(16))))
	f.Add(pngOf(f, image.NewNRGBA64(image.Rect(0, 0, 3, 2))))
	var buffer bytes.Buffer
	require.NoError(f, jpeg.Encode(&buffer, gray(9, 9, randomPixels(81)), nil))
	f.Add(buffer.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		config, _, err := image.DecodeConfig(bytes.NewReader(data))
		if err == nil && config.Width*config.Height > 1<<16 {
			t.Skip("large pictures are slow, not different")
		}
		picture, err := decodePicture(bytes.NewReader(data), "picture")
		if err != nil {
			return
		}
		require.Len(t, resize(picture, 3, 5, 7), 3*5*7)
	})
}

package golden

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryFileLoads(t *testing.T) {
	names, err := fs.Glob(files, "testdata/*.safetensors")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, path := range names {
		name := strings.TrimSuffix(strings.TrimPrefix(path, "testdata/"), ".safetensors")
		cases := Load(t, name)
		require.NotEmpty(t, cases, name)
		described, named := 0, 0
		for key := range cases[0].file.Metadata {
			if strings.HasPrefix(key, "case") {
				described++
			}
		}
		for _, x := range cases[0].file.Tensors {
			if strings.HasPrefix(x.Name, "case") && strings.Contains(x.Name, ".") {
				named++
			}
		}
		require.Equal(t, described, len(cases), name)
		require.Equal(t, len(cases[0].file.Tensors), named, name)
		for _, c := range cases {
			require.NotEmpty(t, c.Kind, "%s %s", name, c.Name)
		}
	}
}

func TestAccessors(t *testing.T) {
	c := Load(t, "layers")[0]
	require.Equal(t, "case00", c.Name)
	require.Equal(t, "conv2d", c.Kind)
	require.Equal(t, "batch 1, odd size", c.Note)
	require.Equal(t, []int{1, 3, 7, 9}, c.Shape("x"))
	require.Len(t, c.Float32("x"), 3*7*9)
	require.Equal(t, float64(c.Float32("x")[5]), c.Float64("x")[5])
	require.True(t, c.Has("b"))
	require.False(t, c.Has("bias"))
	require.Equal(t, 1, c.Int("stride"))
	require.Equal(t, 1.0, c.Number("stride"))
	require.True(t, c.Bool("bias"))
	require.False(t, c.HasParam("lr"))
	require.Equal(t, "conv2d", c.Text("kind"))
	require.Equal(t, []int{10, 20}, Load(t, "layers")[43].Ints("milestones"))

	q := Load(t, "lsq")[0]
	require.Equal(t, int64(q.Int32("q")[7]), q.Integers("q")[7])
	require.Equal(t, int64(q.Uint8("near_tie")[7]), q.Integers("near_tie")[7])
	r := Load(t, "requant")[19]
	require.Equal(t, r.Int64("acc"), r.Integers("acc"))
}

// failing stands in for a test and records that it was failed.
type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Helper()               {}
func (f *failing) Errorf(string, ...any) { f.failed = true }
func (f *failing) FailNow()              { f.failed = true; panic(f) }

func TestAccessorsFailTheTest(t *testing.T) {
	for name, use := range map[string]func(Case){
		"no such tensor":     func(c Case) { c.Float32("nothing") },
		"wrong dtype":        func(c Case) { c.Int32("x") },
		"floats as integers": func(c Case) { c.Integers("x") },
		"no such parameter":  func(c Case) { c.Number("nothing") },
		"wrong type":         func(c Case) { c.Number("bias") },
		"not a list":         func(c Case) { c.Ints("stride") },
		"no such file":       func(c Case) { Load(c.t, "nothing") },
	} {
		t.Run(name, func(t *testing.T) {
			c := Load(t, "layers")[0]
			f := &failing{TB: t}
			c.t = f
			require.PanicsWithValue(t, f, func() { use(c) })
		})
	}
	t.Run("not an integer", func(t *testing.T) {
		c := Load(t, "layers")[15]
		f := &failing{TB: t}
		c.t = f
		require.PanicsWithValue(t, f, func() { c.Int("momentum") })
	})
}

func TestRunVisitsEveryCaseOfTheKind(t *testing.T) {
	var seen []string
	Run(t, "layers", "relu", func(t *testing.T, c Case) {
		require.Equal(t, t, c.t)
		seen = append(seen, c.Name)
	})
	require.Equal(t, []string{"case28"}, seen)
}

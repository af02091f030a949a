package train

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNextFolderCounts(t *testing.T) {
	t.Parallel()
	parent := filepath.Join(t.TempDir(), "runs", "here")
	for _, want := range []string{"net-1", "net-2", "net-3"} {
		path, err := NextFolder(parent, "net")
		require.NoError(t, err)
		require.Equal(t, filepath.Join(parent, want), path)
		require.DirExists(t, path)
	}
	require.NoError(t, os.WriteFile(filepath.Join(parent, "other-1"), nil, 0o644))
	path, err := NextFolder(parent, "other")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(parent, "other-2"), path)
	_, err = NextFolder(filepath.Join(parent, "other-1"), "net")
	require.ErrorContains(t, err, "train: run folder: mkdir ")
	_, err = NextFolder(parent, filepath.Join("missing", "net"))
	require.ErrorContains(t, err, "train: run folder: mkdir ")
}

func TestReadConfig(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	var usage *UsageError
	_, err := ReadConfig(folder)
	require.EqualError(t, err, "train: "+folder+" is not a run folder: it has no config.yaml")
	require.ErrorAs(t, err, &usage)
	path := filepath.Join(folder, ConfigFile)
	require.NoError(t, os.WriteFile(path, []byte("batch: 0\n"), 0o644))
	_, err = ReadConfig(folder)
	require.EqualError(t, err, "train: batch of 0 images: want 1 to 1048576 ("+path+")")
	require.ErrorAs(t, err, &usage)
	_, err = ReadConfig(path)
	require.ErrorContains(t, err, "train: stat "+filepath.Join(path, ConfigFile))
}

// files returns the names and contents in a folder.
func files(t *testing.T, folder string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	contents := map[string]string{}
	for _, e := range entries {
		contents[e.Name()] = string(read(t, folder, e.Name()))
	}
	return contents
}

// copied returns a folder with copies of a finished run's files.
func copied(t *testing.T) string {
	t.Helper()
	from, _ := finishedRun(t)
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(folder, os.DirFS(from)))
	return folder
}

// Whatever is refused leaves the folder as it is.
func TestRunsAreNotOverwritten(t *testing.T) {
	run := copied(t)
	config := filepath.Join(run, ConfigFile)
	foreign := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(foreign, ModelFile), []byte("precious"), 0o644))
	empty := t.TempDir()
	for _, c := range []struct {
		name, folder string
		change       func(*rig)
		want         string
	}{
		{"existing run", run, nil, "train: " + run + " holds a run already: resume it with --resume, or start over in it with --force"},
		{"another seed", run, func(r *rig) { r.Resume, r.Config.Seed = true, 2 }, "train: " + run + ` was started with another configuration: "seed: 1" then, "seed: 2" now`},
		{"another schedule", run, func(r *rig) { r.Resume, r.Config.Quantized.Schedule = true, "constant" },
			"train: " + run + ` was started with another configuration: "schedule: cosine,warmup=0.5" then, "schedule: constant" now`},
		{"resume and force", run, func(r *rig) { r.Resume, r.Force = true, true }, "train: --resume and --force exclude each other"},
		{"a setting that can't be", run, func(r *rig) { r.Force, r.Config.Batch = true, 0 }, "train: batch of 0 images: want 1 to 1048576"},
		{"a model that is not", run, func(r *rig) { r.Force = true; r.Build = newRig(t, "", func(c *Config) { c.Model = "x" }).Build }, `no model "x"`},
		{"a batch larger than the training set", run, func(r *rig) { r.Force, r.Config.Batch = true, 201 }, "train: batch of 201 images: the training set has only 200"},
		{"a batch larger than what is left of it", run, func(r *rig) { r.Force, r.Config.Batch, r.Config.TrainImages = true, 21, 20 },
			"train: batch of 21 images: the training set has only 20"},
		{"validation on everything", run, func(r *rig) { r.Force, r.Config.Validation = true, 200 }, "datasets: mnist: a validation split of 200 images; 1 to 199 are possible"},
		{"nothing to resume", empty, func(r *rig) { r.Resume = true }, "train: nothing to resume: " + empty + " has no config.yaml"},
		{"no folder to resume", filepath.Join(empty, "x"), func(r *rig) { r.Resume = true }, "train: nothing to resume: " + filepath.Join(empty, "x") + " has no config.yaml"},
		{"a model of something else", foreign, nil, "train: " + foreign + " holds a model.goq already: name another folder, or overwrite it with --force"},
	} {
		before := [3]map[string]string{files(t, run), files(t, foreign), files(t, empty)}
		r := newRig(t, c.folder, nil)
		if c.change != nil {
			c.change(r)
		}
		_, err := r.Run(t.Context())
		require.EqualError(t, err, c.want, c.name)
		var usage *UsageError
		require.ErrorAs(t, err, &usage, c.name)
		require.Equal(t, before, [3]map[string]string{files(t, run), files(t, foreign), files(t, empty)}, c.name)
	}
	_, err := newRig(t, filepath.Join(config, "below"), nil).Run(t.Context())
	require.ErrorContains(t, err, "train: run folder: ")
	require.NotContains(t, err.Error(), "\n")
}

func TestDifference(t *testing.T) {
	t.Parallel()
	require.Equal(t, `"b: 2" then, "b: 3" now`, difference("a: 1\n  b: 2\n", "a: 1\n  b: 3\nc: 4\n"))
	require.Equal(t, "one has more settings than the other", difference("a: 1", "a: 1\nb: 2"))
}

// --force starts over: a run that is stopped early has nothing left of the old one.
func TestForceStartsOver(t *testing.T) {
	folder := copied(t)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "notes.txt"), []byte("mine"), 0o644))
	r := newRig(t, folder, func(c *Config) { c.Seed = 2 })
	r.Force = true
	left := map[string]string{}
	r.atStep(FloatPhase, 1, func() { left = files(t, folder) })
	result := r.complete(t)
	require.Len(t, left, 2)
	require.Contains(t, left[ConfigFile], "seed: 2\n")
	require.Equal(t, "mine", left["notes.txt"])
	_, before := finishedRun(t)
	require.NotEqual(t, before.WeightsSHA256, result.WeightsSHA256)
}

func TestDamagedRunFolders(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(folder string) error
		want  string
	}{
		"checkpoint cut off": {func(folder string) error { return os.Truncate(filepath.Join(folder, CheckpointFile), 5000) },
			"train: checkpoint: it is not a whole safetensors file: safetensors: "},
		"checkpoint of another run": {func(folder string) error {
			other, err := LoadCheckpoint(filepath.Join(folder, CheckpointFile))
			if err != nil {
				return err
			}
			other.Config = strings.Replace(other.Config, "seed: 1", "seed: 5", 1)
			return other.Save(filepath.Join(folder, CheckpointFile))
		}, `checkpoint.safetensors belongs to another configuration: "seed: 5" then, "seed: 1" now`},
		"configuration damaged": {func(folder string) error {
			return os.WriteFile(filepath.Join(folder, ConfigFile), []byte("seed: x"), 0o644)
		}, "train: configuration: line 1: want a whole number from 0 to 2^64-1, not `x` ("},
	} {
		folder := copied(t)
		require.NoError(t, c.spoil(folder))
		before := files(t, folder)
		r := newRig(t, folder, nil)
		r.Resume = true
		_, err := r.Run(t.Context())
		require.ErrorContains(t, err, c.want, name)
		require.NotContains(t, err.Error(), "\n", name)
		require.Equal(t, before, files(t, folder), name)
	}
}

// A configuration file is all that it takes to make a run again.
func TestConfigurationRepeatsItsRun(t *testing.T) {
	want, _ := finishedRun(t)
	c, err := ReadConfig(want)
	require.NoError(t, err)
	folder := t.TempDir()
	newRig(t, folder, func(now *Config) { *now = c }).complete(t)
	requireSameRun(t, want, folder)
}

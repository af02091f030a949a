package train

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/goqat/goqat/internal/atomicfile"
)

// Files of a run folder.
const (
	ConfigFile     = "config.yaml"
	MetricsFile    = "metrics.jsonl"
	CheckpointFile = "checkpoint.safetensors"
	ModelFile      = "model.goq"
	ResultFile     = "result.json"
)

// runFiles are the files that a run writes, the result first: a folder without one is not finished.
var runFiles = []string{ResultFile, ModelFile, CheckpointFile, MetricsFile, ConfigFile}

// NextFolder returns the first of parent/name-1, parent/name-2, … that does not exist, and makes it.
func NextFolder(parent, name string) (string, error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("train: run folder: %w", err)
	}
	for i := 1; ; i++ {
		path := filepath.Join(parent, fmt.Sprintf("%s-%d", name, i))
		err := os.Mkdir(path, 0o755)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("train: run folder: %w", err)
		}
	}
}

// ReadConfig reads a run folder's configuration.
func ReadConfig(folder string) (Config, error) {
	path := filepath.Join(folder, ConfigFile)
	c, err := LoadConfig(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, usagef("train: %s is not a run folder: it has no %s", folder, ConfigFile)
	}
	return c, err
}

// open makes the run's folder ready: a new one, one to resume, or one to start over in.
func (e *Experiment) open() (*Checkpoint, error) {
	found, err := e.find()
	switch {
	case err != nil:
		return nil, fmt.Errorf("train: run folder: %w", err)
	case found == ConfigFile && e.Resume:
		return e.reopen()
	case e.Resume:
		return nil, usagef("train: nothing to resume: %s has no %s", e.Folder, ConfigFile)
	case found == ConfigFile && !e.Force:
		return nil, usagef("train: %s holds a run already: resume it with --resume, or start over in it with --force", e.Folder)
	case found != "" && !e.Force:
		return nil, usagef("train: %s holds a %s already: name another folder, or overwrite it with --force", e.Folder, found)
	}
	if err := os.MkdirAll(e.Folder, 0o755); err != nil {
		return nil, fmt.Errorf("train: run folder: %w", err)
	}
	for _, name := range runFiles {
		if err := os.Remove(e.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("train: run folder: %w", err)
		}
	}
	text, err := e.Config.Encode()
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(e.path(ConfigFile), text, 0o644); err != nil {
		return nil, fmt.Errorf("train: run folder: %w", err)
	}
	return nil, nil
}

// find returns the last of runFiles that the folder has: the configuration where it holds a run, "" where a run would
// overwrite nothing.
func (e *Experiment) find() (string, error) {
	for _, name := range slices.Backward(runFiles) {
		there, err := exists(e.path(name))
		if there || err != nil {
			return name, err
		}
	}
	return "", nil
}

// reopen checks that the folder's run has the same configuration and returns its checkpoint, nil if it has none yet.
func (e *Experiment) reopen() (*Checkpoint, error) {
	text, err := e.Config.Encode()
	if err != nil {
		return nil, err
	}
	stored, err := ReadConfig(e.Folder)
	if err != nil {
		return nil, err
	}
	before, err := stored.Encode()
	if err != nil {
		return nil, err
	}
	if string(before) != string(text) {
		return nil, usagef("train: %s was started with another configuration: %s", e.Folder, difference(string(before), string(text)))
	}
	there, err := exists(e.path(CheckpointFile))
	if err != nil || !there {
		return nil, err
	}
	c, err := LoadCheckpoint(e.path(CheckpointFile))
	if err != nil {
		return nil, err
	}
	own, err := completed(c.Config)
	if err != nil {
		return nil, checkpointErrorf("%s: %v", e.path(CheckpointFile), err)
	}
	if own != string(text) {
		return nil, checkpointErrorf("%s belongs to another configuration: %s", e.path(CheckpointFile), difference(own, string(text)))
	}
	return c, nil
}

// completed returns a configuration with all settings that there are now, for text that may be older than some.
func completed(text string) (string, error) {
	c, err := ParseConfig([]byte(text))
	if err != nil {
		return "", err
	}
	all, err := c.Encode()
	return string(all), err
}

func (e *Experiment) path(name string) string { return filepath.Join(e.Folder, name) }

package datasets

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Report says what Verify found.
type Report struct {
	Name  string       `json:"name"`
	Dir   string       `json:"dir"`
	Files []FileReport `json:"files"` // by member
}

// FileReport is the state of one member.
type FileReport struct {
	File    string `json:"file"`              // where it was found
	Bytes   int64  `json:"bytes"`             // that it must have, uncompressed
	Check   string `json:"check"`             // "SHA-256" or "MD5", or "size" where no checksum is known
	Sum     string `json:"sum"`               // of the content; "" if it can't be read
	Problem string `json:"problem,omitempty"` // "" if all is well
}

// Verify reads the files of a registered data set, in dir or, if that is "", where Locate finds them, and compares their
// sizes and checksums with the published ones. The report covers every member that could be reached; the error is the
// first problem, a *FormatError if content is wrong.
func Verify(name, dir string) (Report, error) {
	files, err := filesOf(name)
	if err != nil {
		return Report{}, err
	}
	if dir, err = Locate(name, dir); err != nil {
		return Report{}, err
	}
	report := Report{Name: name, Dir: dir}
	var problems []error
	err = files.each(os.DirFS(dir), func(e entry) error {
		file, err := e.verify()
		report.Files = append(report.Files, file)
		if err != nil {
			problems = append(problems, err)
		}
		return nil
	})
	if problems = append(problems, err); problems[0] != nil {
		return report, fmt.Errorf("%s: folder %s: %w", name, dir, problems[0])
	}
	return report, nil
}

// verify reads a member for its checksum alone.
func (e entry) verify() (FileReport, error) {
	_, known, algorithm := e.hash()
	if known == "" {
		algorithm = "size"
	}
	sum, err := e.read(func(io.Reader) error { return nil })
	report := FileReport{File: e.file, Bytes: e.Size, Check: algorithm, Sum: sum}
	var format *FormatError
	switch {
	case errors.As(err, &format):
		report.Problem = format.Reason
	case err != nil:
		report.Problem = err.Error()
	}
	return report, err
}

package registry

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Table declares a file: its name, its columns and how a line becomes a row.
type Table[T any] struct {
	// File is one of FileNames.
	File string
	// Columns are the names of all columns; the header has each of them once, in any order.
	Columns []string
	// Parse makes a row of a line. It reports what is wrong through the methods
	// of Line and returns anything then; a line with problems is not a row.
	Parse func(line *Line) T
}

// Read opens the file in folder for reading; problems go to report. A file that
// is absent reads as one without rows. The caller closes the Reader.
func (t Table[T]) Read(folder *Folder, report *Report) (*Reader[T], error) {
	reader := &Reader[T]{table: t, report: report}
	file, err := folder.files.Open(t.File)
	if errors.Is(err, fs.ErrNotExist) {
		return reader, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open a registry file: %w", err)
	}
	reader.file = file
	reader.scan(file)
	return reader, nil
}

// Reader reads the rows of one file, one after the other:
//
//	reader, err := table.Read(folder, report)
//	...
//	defer reader.Close()
//	for reader.Next() {
//		use(reader.Number(), reader.Row())
//	}
//	return reader.Err()
type Reader[T any] struct {
	table  Table[T]
	report *Report
	file   fs.File // nil when the file is absent
	lines  *bufio.Reader
	line   Line
	row    T
	err    error
}

// scan reads the header and prepares for the lines. A header that is wrong is a
// problem and leaves no lines to read.
func (r *Reader[T]) scan(file io.Reader) {
	r.lines = bufio.NewReaderSize(file, maxLine)
	r.line = Line{file: r.table.File, report: r.report}
	if bom, err := r.lines.Peek(3); err == nil && string(bom) == "\xef\xbb\xbf" {
		_, _ = r.lines.Discard(3) // cannot fail: they have been peeked at
	}
	if !r.readLine() {
		if r.err == nil && r.line.number == 0 {
			r.report.Add(r.table.File, 0, "the file is empty: a header line is needed")
		}
		r.lines = nil
		return
	}
	if reasons := r.matchHeader(slices.Clone(r.line.fields)); len(reasons) > 0 {
		for _, reason := range reasons {
			r.report.Add(r.table.File, r.line.number, reason)
		}
		r.lines = nil
	}
}

// matchHeader finds the place of each column and returns what is wrong with the header.
func (r *Reader[T]) matchHeader(names []string) (reasons []string) {
	if len(names) == 1 && len(r.table.Columns) > 1 && strings.ContainsAny(names[0], ";\t") {
		return []string{"columns must be separated by commas"}
	}
	r.line.columns = make(map[string]int, len(names))
	for i, name := range names {
		name = strings.TrimSpace(name)
		switch _, seen := r.line.columns[name]; {
		case seen:
			reasons = append(reasons, fmt.Sprintf("column %q stands in the header twice", name))
		case !slices.Contains(r.table.Columns, name):
			reasons = append(reasons, fmt.Sprintf("column %q is not known; the columns are %s",
				name, strings.Join(r.table.Columns, ", ")))
		}
		r.line.columns[name] = i
	}
	for _, name := range r.table.Columns {
		if _, ok := r.line.columns[name]; !ok {
			reasons = append(reasons, fmt.Sprintf("column %q is missing", name))
		}
	}
	return reasons
}

// Next reads up to the next good row and tells whether there is one. Bad lines
// on the way are problems of the report.
func (r *Reader[T]) Next() bool {
	for r.lines != nil && r.readLine() {
		if len(r.line.fields) != len(r.table.Columns) {
			r.line.fail(fmt.Sprintf("has %d fields, the header has %d", len(r.line.fields), len(r.table.Columns)))
			continue
		}
		r.line.bad = false
		if r.row = r.table.Parse(&r.line); !r.line.bad {
			return true
		}
	}
	return false
}

// Row returns the row that Next has read.
func (r *Reader[T]) Row() T { return r.row }

// Number returns the line number of the row that Next has read; the header is line 1.
func (r *Reader[T]) Number() int { return r.line.number }

// Err returns the error that ended reading, or nil at the end of the file.
func (r *Reader[T]) Err() error { return r.err }

// Close closes the file.
func (r *Reader[T]) Close() error {
	if r.file == nil {
		return nil
	}
	if err := r.file.Close(); err != nil {
		return fmt.Errorf("close a registry file: %w", err)
	}
	return nil
}

// CopySource makes the reader a source of pgx's CopyFrom. values returns the
// columns of a row; it may return the same slice each time.
func (r *Reader[T]) CopySource(values func(number int, row T) []any) *CopySource[T] {
	return &CopySource[T]{Reader: r, values: values}
}

// CopySource feeds the rows of a Reader to pgx's CopyFrom.
type CopySource[T any] struct {
	*Reader[T]
	values func(number int, row T) []any
}

// Values returns the columns of the row that Next has read.
func (s *CopySource[T]) Values() ([]any, error) { return s.values(s.Number(), s.Row()), nil }

// readLine reads the next line that is not empty and splits it into fields. A
// line that cannot be split is a problem, and reading goes on behind it.
func (r *Reader[T]) readLine() bool {
	for {
		text, err := r.lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			r.line.number++
			r.line.fail(fmt.Sprintf("is longer than %d bytes", maxLine))
			if !r.skipLine() {
				return false
			}
			continue
		case err != nil && !errors.Is(err, io.EOF):
			r.err = fmt.Errorf("read %s: %w", r.table.File, err)
			return false
		case len(text) == 0:
			return false
		}
		r.line.number++
		content := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
		if content == "" {
			continue
		}
		fields, reason := split(content, r.line.fields[:0])
		r.line.fields = fields
		if reason == "" {
			return true
		}
		r.line.fail(reason)
		if r.line.columns == nil {
			return false // the header: what follows has no meaning without it
		}
	}
}

// skipLine reads to the end of a line that is too long.
func (r *Reader[T]) skipLine() bool {
	for {
		_, err := r.lines.ReadSlice('\n')
		switch {
		case err == nil:
			return true
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return false
		default:
			r.err = fmt.Errorf("read %s: %w", r.table.File, err)
			return false
		}
	}
}

package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dashboards are the alert rules for Prometheus and the dashboard for Grafana.
//
//go:embed dashboards
var dashboards embed.FS

type dashboardsCommand struct {
	answering
	Dir   string `arg:"" type:"path" help:"Folder to write to; made when it is not there."`
	Force bool   `help:"Write over files that were changed."`
}

// Run writes the files into a folder. One that is there already, and is not as
// this program writes it, may hold somebody's work and is left alone.
func (d *dashboardsCommand) Run(_ context.Context, c *console) error {
	files, err := dashboards.ReadDir("dashboards")
	if err != nil {
		return fmt.Errorf("open the embedded files: %w", err)
	}
	if err := os.MkdirAll(d.Dir, 0o755); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	var written []string
	for _, file := range files {
		data, err := dashboards.ReadFile("dashboards/" + file.Name())
		if err != nil {
			return fmt.Errorf("open the embedded files: %w", err)
		}
		path := filepath.Join(d.Dir, file.Name())
		there, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("look at what is there: %w", err)
		case !d.Force && !bytes.Equal(there, data):
			return fmt.Errorf("%s is there and differs from what this program writes; --force writes over it", path)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return fmt.Errorf("write the dashboards: %w", err)
		}
		written = append(written, path)
	}
	return d.print(c, map[string]any{"files": written}, "%s", strings.Join(written, "\n"))
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// readyFile is what --ready-file says once everything listens (contract.md
// section 2). Addresses are host:port.
type readyFile struct {
	PID      int                 `json:"pid"`
	HTTP     string              `json:"http"`
	Admin    string              `json:"admin"`
	SMPP     string              `json:"smpp,omitzero"`
	Phones   string              `json:"phones,omitzero"`
	Mail     string              `json:"mail,omitzero"`
	Database string              `json:"database"`
	Keys     map[string]readyKey `json:"keys,omitzero"`
	Partner  map[string]string   `json:"partner,omitzero"`
}

// readyKey is a demo key, by kind of device.
type readyKey struct {
	Building string `json:"building"`
	Name     string `json:"name"`
	Key      string `json:"key"`
}

// write puts the file in place in one step, so that whoever waits for it never
// reads half of it. It may hold keys: nobody else may read it.
func (r readyFile) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the ready-file: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".ready-*")
	if err != nil {
		return fmt.Errorf("write the ready-file: %w", err)
	}
	defer os.Remove(temporary.Name()) // gone already when all went well
	_, err = temporary.Write(append(data, '\n'))
	if closed := temporary.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write the ready-file: %w", err)
	}
	return nil
}

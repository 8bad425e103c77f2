package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/email"
)

// mailParts are the parts of the mail side that the settings decide.
type mailParts struct {
	sender     *email.Sender
	metrics    *email.Metrics
	returnPath *email.ReturnPath // nil: no bounces are taken
	domain     string
	log        *slog.Logger
}

func newMail(config Config, log *slog.Logger, registry prometheus.Registerer) (*mailParts, error) {
	from, err := netmail.ParseAddress(config.Mail.From)
	if err != nil {
		return nil, fmt.Errorf("mail.from: %w", err)
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	m := &mailParts{metrics: email.NewMetrics(registry), domain: domain, log: log}
	if config.Mail.BounceListen != "" {
		dir, err := config.dataDir()
		if err != nil {
			return nil, err
		}
		key, err := keptKey(filepath.Join(dir, "return-path.key"))
		if err != nil {
			return nil, err
		}
		bounceDomain := config.Mail.BounceDomain
		if bounceDomain == "" {
			bounceDomain = domain
		}
		if m.returnPath, err = email.NewReturnPath("bounce@"+bounceDomain, key); err != nil {
			return nil, fmt.Errorf("mail.bounce_domain: %w", err)
		}
	}
	var dkim *email.DKIM
	if config.Mail.DKIMKeyFile != "" {
		source, err := os.ReadFile(config.Mail.DKIMKeyFile)
		if err != nil {
			return nil, fmt.Errorf("mail.dkim_key_file: %w", err)
		}
		key, err := email.ParseDKIMKey(source)
		if err != nil {
			return nil, fmt.Errorf("mail.dkim_key_file: %w", err)
		}
		if config.Mail.DKIMSelector == "" {
			return nil, errors.New("mail.dkim_selector: must be given with mail.dkim_key_file")
		}
		dkim = &email.DKIM{Domain: domain, Selector: config.Mail.DKIMSelector, Key: key}
	}
	m.sender, err = email.NewSender(email.Config{
		Relay: config.Mail.Smarthost, Security: email.Security(config.Mail.TLS),
		Username: config.Mail.Username, Password: config.Mail.Password, From: config.Mail.From,
		ReturnPath: m.returnPath, DKIM: dkim, Log: log, Metrics: m.metrics, Now: time.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	return m, nil
}

// intake takes bounces.
func (m *mailParts) intake(bounced func(context.Context, email.Bounce) error) *email.Intake {
	return email.NewIntake(email.IntakeConfig{
		ReturnPath: m.returnPath, Hello: m.domain, OnBounce: bounced, Log: m.log, Metrics: m.metrics, Now: time.Now,
	})
}

// keptKey reads a key of this installation, or makes it: what it signs (return
// paths, links in letters) comes back days later, so it must outlive the process.
func keptKey(path string) ([]byte, error) {
	return keptSecret(path, func() ([]byte, error) { return []byte(rand.Text() + rand.Text()), nil })
}

// keptSecret reads a secret of this installation, or makes it.
func keptSecret(path string, make func() ([]byte, error)) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil {
		return key, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read a key: %w", err)
	}
	if key, err = make(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("keep a key: %w", err)
	}
	if err := os.WriteFile(path, key, 0o600); err != nil {
		return nil, fmt.Errorf("keep a key: %w", err)
	}
	return key, nil
}

package main

import (
	"fmt"
	"log/slog"
	netmail "net/mail"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"zvonok/gateway/push"
)

// newPush makes the sender of notifications in browsers. Its key is kept in the
// data folder: browsers are registered for that key alone.
func newPush(config Config, log *slog.Logger, registry prometheus.Registerer) (*push.Sender, error) {
	dir, err := config.dataDir()
	if err != nil {
		return nil, err
	}
	source, err := keptSecret(filepath.Join(dir, "vapid.key"), push.NewKey)
	if err != nil {
		return nil, err
	}
	key, err := push.ParseKey(source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "vapid.key"), err)
	}
	contact := config.Push.Contact
	if contact == "" {
		from, err := netmail.ParseAddress(config.Mail.From)
		if err != nil {
			return nil, fmt.Errorf("mail.from: %w", err)
		}
		contact = from.Address
	}
	sender, err := push.NewSender(push.Config{
		Key: key, Contact: contact, Services: config.Push.Services, Log: log, Metrics: push.NewMetrics(registry), Now: time.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("push: %w", err)
	}
	return sender, nil
}

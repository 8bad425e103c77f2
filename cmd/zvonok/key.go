package main

import (
	"context"
	"fmt"
	"time"

	"zvonok/access/reader"
)

type keyCommands struct {
	Add    keyAddCommand    `cmd:"" help:"Make a key for a device; the secret is printed once and stored hashed."`
	List   keyListCommand   `cmd:"" help:"List the devices and when each was last heard."`
	Revoke keyRevokeCommand `cmd:"" help:"Revoke a device's key; it is refused from now on."`
}

type keyAddCommand struct {
	Kind     string `required:"" enum:"door,till,staff-tablet" help:"What the device is: ${enum}."`
	Building string `required:"" help:"The building it stands in (building_id of the registry)."`
	Name     string `required:"" help:"What people call it."`
	JSON     bool   `name:"json" help:"Print JSON."`
}

func (k *keyAddCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		device, key, err := reader.AddDevice(ctx, d.pool, reader.NewDevice{
			Kind: reader.DeviceKind(k.Kind), Building: k.Building, Name: k.Name,
		}, time.Now())
		if err != nil {
			return err
		}
		if k.JSON {
			return printJSON(c.out, map[string]any{"id": device.ID, "key": key.Reveal()})
		}
		_, err = fmt.Fprintf(c.out, "device %d, key %s\nThe key is shown this once. Give it to the device as: Authorization: Bearer KEY\n",
			device.ID, key.Reveal())
		return err
	})
}

type keyListCommand struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (k *keyListCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		devices, err := reader.ListDevices(ctx, d.pool)
		if err != nil {
			return err
		}
		if k.JSON {
			return printJSON(c.out, devices)
		}
		rows := make([][]any, 0, len(devices))
		for _, device := range devices {
			state := "never heard"
			switch {
			case !device.RevokedAt.IsZero():
				state = "revoked " + device.RevokedAt.Format(time.DateTime)
			case !device.SeenAt.IsZero():
				state = "heard " + device.SeenAt.Format(time.DateTime)
			}
			if !device.SkewedFrom.IsZero() {
				state += fmt.Sprintf(", clock off by %s", device.Skew.Round(time.Second))
			}
			rows = append(rows, []any{device.ID, device.Kind, device.Building, device.Name, state})
		}
		return table(c.out, []any{"ID", "KIND", "BUILDING", "NAME", "STATE"}, rows)
	})
}

type keyRevokeCommand struct {
	ID int64 `arg:"" help:"The device's id, as key list shows it."`
}

func (k *keyRevokeCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		if err := reader.RevokeDevice(ctx, d.pool, reader.DeviceID(k.ID), time.Now()); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.out, "device %d: the key is revoked\n", k.ID)
		return err
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"zvonok/access"
	"zvonok/access/reader"
)

type keyCommands struct {
	Add    keyAddCommand    `cmd:"" help:"Make a key for a device; the secret is printed once and stored hashed."`
	List   keyListCommand   `cmd:"" help:"List the devices and when each was last heard."`
	Revoke keyRevokeCommand `cmd:"" help:"Revoke a device's key; it is refused from now on."`
	Settle keySettleCommand `cmd:"" help:"Note that an alarm of a device has been looked after."`
	Gaps   keyGapsCommand   `cmd:"" help:"List the numbers a device has used and not sent: events still in it, or lost."`
}

type keyAddCommand struct {
	Kind     string `required:"" enum:"door,till,staff-tablet" help:"What the device is: ${enum}."`
	Building string `required:"" help:"The building it stands in (building_id of the registry)."`
	Name     string `required:"" help:"What people call it."`
	Profile  string `default:"plain" help:"How its reader reports identifiers: plain, or reversed, mirrored, inverted, w26, w34 joined by hyphens."`
	JSON     bool   `name:"json" help:"Print JSON."`
}

func (k *keyAddCommand) Run(ctx context.Context, c *console) error {
	profile, err := access.ParseProfile(k.Profile)
	if err != nil {
		return usageError{err}
	}
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		var (
			device     reader.Device
			key        reader.Key
			collisions []access.Collision
		)
		err := pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) (err error) {
			device, key, err = reader.AddDevice(ctx, tx, reader.NewDevice{
				Kind: reader.DeviceKind(k.Kind), Building: k.Building, Name: k.Name, Profile: profile,
			}, time.Now())
			if err != nil {
				return err
			}
			// From now on the organisation issues no card that this reader could not tell from another.
			collisions, err = access.AddReaderForm(ctx, tx, device.Organisation, profile.Part())
			return err
		})
		if errors.Is(err, reader.ErrNoBuilding) {
			return fmt.Errorf("building %q is not in the register; give its building_id of buildings.csv", k.Building)
		}
		if err != nil {
			return err
		}
		for _, collision := range collisions {
			fmt.Fprintf(c.err, "cards %d and %d are the same to a reader that keeps %s: replace one of them (zvonok card replace)\n",
				collision.First, collision.Second, collision.Part)
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
			if !device.ListedAt.IsZero() && device.RevokedAt.IsZero() {
				state += ", list of " + device.ListedAt.Format(time.DateTime)
			}
			if !device.SkewedFrom.IsZero() {
				state += fmt.Sprintf(", clock off by %s", device.Skew.Round(time.Second))
			}
			for _, a := range device.Alarms {
				state += fmt.Sprintf("; ALARM %d: %s since %s (%s)", a.ID, alarmWords[a.Kind], a.RaisedAt.Local().Format(moment), a.Evidence)
			}
			rows = append(rows, []any{device.ID, device.Kind, device.Building, device.Name, device.Profile, state})
		}
		return table(c.out, []any{"ID", "KIND", "BUILDING", "NAME", "READER", "STATE"}, rows)
	})
}

// alarmWords say what an alarm of a device is.
var alarmWords = map[reader.DeviceAlarm]string{
	reader.TwoAddresses:  "heard from two addresses at once",
	reader.ForkedNumbers: "one number with two contents",
}

type keySettleCommand struct {
	signed
	answering
	Alarm int64 `arg:"" help:"The alarm, as key list shows it."`
}

func (k *keySettleCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		err := reader.SettleAlarm(ctx, d.pool, 0, k.Alarm, k.actor(), time.Now())
		if errors.Is(err, reader.ErrNoDeviceAlarm) {
			return fmt.Errorf("alarm %d is not open (zvonok key list)", k.Alarm)
		}
		if err != nil {
			return err
		}
		return k.print(c, map[string]any{"alarm": k.Alarm, "state": "settled"}, "alarm %d is settled", k.Alarm)
	})
}

type keyRevokeCommand struct {
	answering
	ID int64 `arg:"" help:"The device's id, as key list shows it."`
}

func (k *keyRevokeCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		if err := reader.RevokeDevice(ctx, d.pool, reader.DeviceID(k.ID), time.Now()); err != nil {
			return err
		}
		return k.print(c, map[string]any{"id": k.ID, "state": "revoked"}, "device %d: the key is revoked", k.ID)
	})
}

type keyGapsCommand struct {
	ID   int64 `arg:"" help:"The device's id, as key list shows it."`
	JSON bool  `name:"json" help:"Print JSON."`
}

func (k *keyGapsCommand) Run(ctx context.Context, c *console) error {
	return c.withDatabase(ctx, func(ctx context.Context, d *database) error {
		gaps, err := reader.Gaps(ctx, d.pool, reader.DeviceID(k.ID), maxGaps)
		if err != nil {
			return err
		}
		if k.JSON {
			return printJSON(c.out, append([]reader.Gap{}, gaps...))
		}
		rows := make([][]any, 0, len(gaps))
		for _, gap := range gaps {
			rows = append(rows, []any{
				gap.First, gap.Last, gap.Last - gap.First + 1, gap.Since.Local().Format(moment), gap.Until.Local().Format(moment),
			})
		}
		return table(c.out, []any{"FIRST", "LAST", "MISSING", "AFTER", "BEFORE"}, rows)
	})
}

// maxGaps bounds a list of gaps; a device with more of them counts in steps.
const maxGaps = 1000

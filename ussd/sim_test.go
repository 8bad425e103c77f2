package ussd

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
)

// ussd.md 1.3 and 6: the IMSI is taken from the parameter that the profile names and from no other, by links with the
// role "ussd" alone, and leaves the engine as a hash.
func TestTheIMSIIsTakenWhereTheProfileSaysAndLeavesAsAHash(t *testing.T) {
	const imsi = "250010000000001"
	profiles, err := NewProfiles([]ProfileSetting{{Name: "careful", Base: "kz-found", IMSI: []string{}}})
	if err != nil {
		t.Fatal(err)
	}
	asIs := func(tag smpp.Tag, text string) smpp.TLV { return smpp.TLV{Tag: tag, Value: []byte(text)} }
	for _, c := range []struct {
		what, profile, link string
		tlv                 smpp.TLV
		want                string
	}{
		{"callback_num", "kz-found", "mts", asIs(smpp.TagCallbackNum, imsi), "#" + imsi},
		{"callback_num with its heading", "kz-found", "mts", asIs(smpp.TagCallbackNum, "\x01\x01\x01"+imsi), "#" + imsi},
		{"SMPP+", "smpp+", "mts", asIs(tagIMSI, imsi+"\x00"), "#" + imsi},
		{"Eyeline", "eyeline", "mts", asIs(tagEyelineIMSI, imsi), "#" + imsi},
		{"a profile that names none", "plain-its", "mts", asIs(smpp.TagCallbackNum, imsi), ""},
		{"a profile of the settings that names none", "careful", "mts", asIs(smpp.TagCallbackNum, imsi), ""},
		{"the serving node's number", "kz-found", "mts", asIs(smpp.TagCallbackNum, "79000099999"), ""},
		{"zeros", "kz-found", "mts", asIs(smpp.TagCallbackNum, "000000000000000"), ""},
		{"the serving node's parameter", "kz-found", "mts", asIs(smpp.TagSourceSubaddress, imsi), ""},
		{"a link without the role", "kz-found", "customer", asIs(smpp.TagCallbackNum, imsi), "nothing is shown"},
	} {
		t.Run(c.what, func(t *testing.T) {
			got := "nothing is shown"
			var log strings.Builder
			with(t, func(config *Config) {
				config.SIM = func(imsi string) string { return "#" + imsi }
				config.Links[0].Profile = profiles[c.profile]
				config.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				show := config.Show
				config.Show = func(ctx context.Context, v Visit) (Screen, error) {
					got = v.SIM
					return show(ctx, v)
				}
			}, func(r *rig) {
				p := r.phone(masha)
				p.link = c.link
				p.send(opPSSR, "*377*888#", func(d *carrier.Dial) { d.TLVs = append(d.TLVs, c.tlv) })
			})
			if got != c.want {
				t.Errorf("%s: the menu is given %q", c.what, got)
			}
			if strings.Contains(log.String(), imsi) {
				t.Errorf("%s: the log tells the IMSI: %s", c.what, log.String())
			}
		})
	}
	if _, err := NewProfiles([]ProfileSetting{{Name: "x", IMSI: []string{"source_subaddress"}}}); err == nil ||
		!strings.Contains(err.Error(), "callback_num, eyeline_imsi, imsi") {
		t.Errorf("a parameter that holds no IMSI: %v", err)
	}
}

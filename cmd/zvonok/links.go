package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"zvonok/gateway/carrier"
	"zvonok/gateway/smpp"
	"zvonok/ledger/money"
	"zvonok/ussd"
)

// operatorConfigs turns settings into the carrier's terms.
func operatorConfigs(settings []OperatorConfig) ([]carrier.OperatorConfig, error) {
	var configs []carrier.OperatorConfig
	for _, o := range settings {
		cost, err := money.Parse(o.Cost)
		if err != nil {
			return nil, fmt.Errorf("operator %s: cost: %w", o.Name, err)
		}
		c := carrier.OperatorConfig{
			Name: o.Name, Mode: carrier.Mode(o.Mode), Address: o.Address, SystemID: o.SystemID, Password: o.Password,
			SystemType: o.SystemType, Binds: o.Binds, Pair: o.BindType == "pair", Window: o.Window, Rate: float64(o.Rate),
			Source: o.Source, Prefixes: o.Prefixes, Weight: o.Weight, Cost: int64(cost),
			MessageID: carrier.IDMode(o.MessageID), Concatenation: carrier.Method(o.Concat),
		}
		if c.Overrides, c.NetworkErrors, err = operatorCodes(o.Codes); err != nil {
			return nil, fmt.Errorf("operator %s: codes: %w", o.Name, err)
		}
		for _, role := range o.Roles {
			c.Roles = append(c.Roles, carrier.Role(role))
		}
		for _, network := range o.Addresses {
			prefix, err := netip.ParsePrefix(network)
			if err != nil {
				return nil, fmt.Errorf("operator %s: addresses: %w", o.Name, err)
			}
			c.Networks = append(c.Networks, prefix)
		}
		if o.TLS {
			if c.TLS, err = clientTLS(o); err != nil {
				return nil, fmt.Errorf("operator %s: %w", o.Name, err)
			}
		}
		configs = append(configs, c)
	}
	return configs, nil
}

// clientTLS checks the operator's certificate by its name or the address's.
func clientTLS(o OperatorConfig) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if o.TLSName != "" {
		c.ServerName = o.TLSName
	}
	if o.TLSCAFile != "" {
		data, err := os.ReadFile(o.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("tls_ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("tls_ca_file: %s holds no certificate in PEM form", o.TLSCAFile)
		}
	}
	return c, nil
}

// ussdLinks are the operators that may say whose phone is dialling.
func ussdLinks(config Config) ([]ussd.Link, error) {
	profiles, err := ussd.NewProfiles(config.USSD.Profiles)
	if err != nil {
		return nil, fmt.Errorf("ussd.profile: %w", err)
	}
	var links []ussd.Link
	for _, o := range config.Operators {
		if !slices.Contains(o.Roles, "ussd") {
			continue
		}
		profile, err := profiles.Get(o.USSDProfile)
		if err != nil {
			return nil, fmt.Errorf("operator %s: ussd_profile: %w", o.Name, err)
		}
		timeout, err := parseUSSDTimeout("ussd_timeout", o.USSDTimeout)
		if err != nil {
			return nil, fmt.Errorf("operator %s: %w", o.Name, err)
		}
		links = append(links, ussd.Link{
			Name: o.Name, Profile: profile, TTL: timeout, MaxOpen: o.USSDMaxOpen, Latin: o.USSDLatin,
			AnswerAndClose: o.USSDClose, FollowBySMS: o.USSDContinue,
		})
	}
	for _, h := range config.USSD.HTTP {
		caller := &ussd.Caller{Convention: h.Convention, Secret: h.Secret, Region: h.Region}
		for _, network := range h.Addresses {
			prefix, err := netip.ParsePrefix(network)
			if err != nil {
				return nil, fmt.Errorf("ussd.http %s: addresses: %q is not a network such as 192.0.2.0/24", h.Name, network)
			}
			caller.From = append(caller.From, prefix)
		}
		if err := caller.Check(); err != nil {
			return nil, fmt.Errorf("ussd.http %s: %w", h.Name, err)
		}
		timeout, err := parseUSSDTimeout("timeout", h.Timeout)
		if err != nil {
			return nil, fmt.Errorf("ussd.http %s: %w", h.Name, err)
		}
		links = append(links, ussd.Link{
			Name: h.Name, HTTP: caller, TTL: timeout, Latin: h.Latin, AnswerAndClose: h.Close, FollowBySMS: h.Continue,
		})
	}
	return links, nil
}

// networks reads a list of networks such as 192.0.2.0/24.
func networks(key string, texts []string) ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not a network such as 192.0.2.0/24", key, text)
		}
		list = append(list, network)
	}
	return list, nil
}

// operatorCodes reads what an operator means by its codes: of answers, and of
// receipts.
func operatorCodes(entries []string) (overrides []carrier.Override, receipts map[string]carrier.Class, err error) {
	for _, entry := range entries {
		code, class, _ := strings.Cut(entry, "=")
		if word, ok := strings.CutPrefix(code, "err:"); ok {
			if receipts == nil {
				receipts = map[string]carrier.Class{}
			}
			receipts[strings.ToUpper(word)] = carrier.Class(class)
			continue
		}
		status, err := strconv.ParseUint(code, 0, 32)
		if err != nil {
			return nil, nil, fmt.Errorf("%q: %w", entry, err)
		}
		overrides = append(overrides, carrier.Override{Status: smpp.Status(status), Class: carrier.Class(class)})
	}
	return overrides, receipts, nil
}

package main

import (
	"context"
	"reflect"
	"unsafe"

	kubeauth "github.com/hashicorp/vault-plugin-auth-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	auditfile "github.com/hashicorp/vault/builtin/audit/file"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/credential/cert"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/vault"
)

func logicalBackends() map[string]logical.Factory {
	return map[string]logical.Factory{"kv": kv.Factory, "pki": pki.Factory, "transit": transit.Factory}
}

func credentialBackends() map[string]logical.Factory {
	return map[string]logical.Factory{"approle": approle.Factory, "cert": cert.Factory, "kubernetes": kubeauth.Factory}
}

func auditBackends() map[string]audit.Factory {
	return map[string]audit.Factory{"file": auditfile.Factory}
}

// registry answers for the engines above, and no other.
type registry struct{}

func (registry) of(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeSecrets:
		return logicalBackends()
	case consts.PluginTypeCredential:
		return credentialBackends()
	}
	return nil
}

func (r registry) Contains(name string, kind consts.PluginType) bool {
	_, ok := r.of(kind)[name]
	return ok
}

func (r registry) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	factory, ok := r.of(kind)[name]
	return func() (interface{}, error) { return factory, nil }, ok
}

func (r registry) Keys(kind consts.PluginType) []string {
	var names []string
	for name := range r.of(kind) {
		names = append(names, name)
	}
	return names
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	if r.Contains(name, kind) {
		return consts.Supported, true
	}
	return consts.Unknown, false
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

// mend goes around a defect of this version: at its first use a back end panics
// over a path that can create and has no existence check. Exactly those paths
// get one that answers false; given to all of them, mounting breaks. The core
// adds engines of its own to what it is given, so that the wrapping reaches into
// its two maps.
func mend(core *vault.Core) {
	for _, name := range []string{"logicalBackends", "credentialBackends"} {
		field := reflect.ValueOf(core).Elem().FieldByName(name)
		factories := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Interface().(map[string]logical.Factory)
		for kind, factory := range factories {
			factories[kind] = func(ctx context.Context, config *logical.BackendConfig) (logical.Backend, error) {
				made, err := factory(ctx, config)
				for _, b := range frameworks(made) {
					addChecks(b)
				}
				return made, err
			}
		}
	}
}

// frameworks finds the framework's back ends in what a factory made: it is one,
// or embeds one.
func frameworks(made logical.Backend) []*framework.Backend {
	if b, ok := made.(*framework.Backend); ok {
		return []*framework.Backend{b}
	}
	v := reflect.Indirect(reflect.ValueOf(made))
	if v.Kind() != reflect.Struct {
		return nil
	}
	var found []*framework.Backend
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Type() == reflect.TypeFor[*framework.Backend]() && !f.IsNil() && f.CanInterface() {
			found = append(found, f.Interface().(*framework.Backend))
		}
	}
	return found
}

func addChecks(b *framework.Backend) {
	for _, path := range b.Paths {
		_, operation := path.Operations[logical.CreateOperation]
		_, callback := path.Callbacks[logical.CreateOperation]
		if path.ExistenceCheck == nil && (operation || callback) {
			path.ExistenceCheck = func(context.Context, *logical.Request, *framework.FieldData) (bool, error) { return false, nil }
		}
	}
}

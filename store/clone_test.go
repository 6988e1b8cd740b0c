package store

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fill gives every field below v a value, so that a field that Clone forgets shows.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(7)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// shared reports whether a and b refer to the same memory anywhere.
func shared(t *testing.T, path string, a, b reflect.Value) {
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			shared(t, path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
		}
	case reflect.Slice:
		if a.Len() > 0 && a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", path)
		}
		for i := range a.Len() {
			shared(t, path, a.Index(i), b.Index(i))
		}
	case reflect.Map:
		if a.Len() > 0 && a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", path)
		}
	}
}

func TestACloneIsEqualAndSharesNothing(t *testing.T) {
	var e Expectation
	fill(reflect.ValueOf(&e).Elem())
	c := e.Clone()
	if d := cmp.Diff(e, c); d != "" {
		t.Error(d)
	}
	shared(t, "Expectation", reflect.ValueOf(e), reflect.ValueOf(c))
	var zero Expectation
	if d := cmp.Diff(zero, zero.Clone()); d != "" {
		t.Error(d)
	}
}

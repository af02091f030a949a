// Package models holds small convolutional networks as declarative lists of layers that read like their papers' tables.
package models

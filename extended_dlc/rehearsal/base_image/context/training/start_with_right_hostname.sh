#!/usr/bin/env bash
# The stand-in's entry point, as AWS's training images have it, less the library that gives MPI a host name, which wants a
# compiler (aws/deep-learning-containers, scripts/docker/pytorch/start_with_right_hostname.sh). It is no shell `exec`
# there either: SIGTERM ends at this shell, and the script beside it never hears of it.
if [[ "$1" = "train" ]]; then
    train
else
    eval "$@"
fi

# One training over two devices, which are processes where there is no GPU.
set -euo pipefail
sed 's/^training:.*/training: {steps: 4, batch_size: 4, warmup: 1, validations: 4, devices: 2}/' scripts/extras/small.yaml > "$WORK/devices.yaml"
grep -q "devices: 2" "$WORK/devices.yaml"
cgap study run "$WORK/devices.yaml" --store "$WORK/devices-store"

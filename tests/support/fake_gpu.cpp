// A GPU for tensors without data (torch's FakeTensor): enough of one for
// autograd to walk through a graph of them on a machine that has none. Autograd
// asks a device for its streams and waits for events there; here it has one
// device, one stream, and events that have always happened.
//
// Loaded before torch's Python part, which asks for the hooks once, when it is
// imported; the guard is set afterwards, because a torch that is built for CUDA
// sets its own.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <memory>

namespace {

const c10::Device kDevice(c10::DeviceType::CUDA, 0);
const c10::Stream kStream(c10::Stream::DEFAULT, kDevice);

struct Guard : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  c10::Stream getStream(c10::Device) const noexcept override { return kStream; }
  c10::Stream getNewStream(c10::Device, int = 0) const override { return kStream; }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return kStream; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};

struct Hooks : at::CUDAHooksInterface {
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

std::unique_ptr<at::CUDAHooksInterface> hooks(at::CUDAHooksArgs) { return std::make_unique<Hooks>(); }

const bool kRegistered = [] {
  at::CUDAHooksRegistry()->Register("CUDAHooks", hooks, c10::REGISTRY_PREFERRED);
  return true;
}();

}  // namespace

extern "C" void set_guard() {
  const c10::impl::DeviceGuardImplRegistrar registrar(c10::DeviceType::CUDA, new Guard);
}

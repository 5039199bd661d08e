// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <mutex>
#include <vector>

namespace fsllm {

/// Buffers that outlive the calls using them: each call borrows one for itself, so many threads can work at
/// once.
template <class T>
class Pool {
 public:
  class Lease {
   public:
    explicit Lease(Pool& pool) : pool_(pool), item_(pool.take()) {}
    ~Lease() { pool_.put(std::move(item_)); }
    Lease(Lease const&) = delete;
    Lease& operator=(Lease const&) = delete;
    T& operator*() { return *item_; }

   private:
    Pool& pool_;
    std::unique_ptr<T> item_;
  };
  Lease borrow() { return Lease(*this); }

 private:
  std::unique_ptr<T> take() {
    std::lock_guard<std::mutex> const lock(mutex_);
    if (free_.empty()) return std::make_unique<T>();
    auto item = std::move(free_.back());
    free_.pop_back();
    return item;
  }
  void put(std::unique_ptr<T> item) {
    std::lock_guard<std::mutex> const lock(mutex_);
    free_.push_back(std::move(item));
  }
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> free_;
};

}  // namespace fsllm

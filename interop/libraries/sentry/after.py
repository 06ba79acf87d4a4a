from told import told

print(told())
